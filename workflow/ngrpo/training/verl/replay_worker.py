"""verl's worker with our rollout, our statistics, and the export of a policy as a Hugging Face folder."""

import shutil
from pathlib import Path

import torch
import torch.distributed as dist
from torch.distributed.tensor import DTensor
from verl import DataProto
from verl.single_controller.base.decorator import Dispatch, register
from verl.utils.device import get_device_name
from verl.utils.fsdp_utils import get_fsdp_full_state_dict, load_fsdp_model_to_gpu, offload_fsdp_model_to_cpu
from verl.workers.fsdp_workers import ActorRolloutRefWorker

from ngrpo.files import whole_folder
from ngrpo.method.fingerprint import fingerprint
from ngrpo.method.mixers import mixer_from
from ngrpo.study.layout import MODEL_CARD
from ngrpo.training.verl import actor, plugin
from ngrpo.training.verl.actor import DEVIATIONS, FARTHEST, STATISTICS, Cosines, Deviations
from ngrpo.training.verl.replacing import check_built, replaced


class ReplayWorker(ActorRolloutRefWorker):
    """Stock worker with the plugin's parts.

    Replaces verl's ActorRolloutRefWorker. Safe: each method calls the stock one, `export` is new. Were it stock, the
    trainer's `export` would not exist, and parity would fail at the first mixed step.
    """

    @register(dispatch_mode=Dispatch.ONE_TO_ALL)
    def init_model(self):
        """As stock. Raises UserError where the plugin didn't take in this process."""
        plugin.check()
        super().init_model()
        for role in ("actor", "ref_policy"):
            if hasattr(self, role):
                check_built(getattr(self, role), actor.ReplayActor, role)
                getattr(self, role).explore(mixer_from(dict(self.config.rollout.ngrpo.exploration)))

    def _build_rollout(self, trust_remote_code=False):
        """As stock, with MixingRollout in place of verl's SGLangRollout, which it imports here.

        Raises UserError where it didn't take. Only now: importing it imports sglang, which needs `cpu.prepare` first.
        """
        from ngrpo.engines.sglang import cpu

        cpu.prepare()  # before anything imports sglang
        import verl.workers.rollout.sglang_rollout as package

        from ngrpo.training.verl.rollout import MixingRollout

        self.config.rollout.name = "sglang"  # where it is `own_run.ROLLOUT`, by which stock verl would be noticed
        with replaced(package, "SGLangRollout", MixingRollout):
            rollout, manager = super()._build_rollout(trust_remote_code=False)
        check_built(rollout, MixingRollout, "rollout")
        return rollout, manager

    @register(dispatch_mode=Dispatch.DP_COMPUTE_PROTO)
    def compute_log_prob(self, data: DataProto):
        """As stock; adds the statistics of what was mixed, and how far it is from what the engine's model read."""
        out = super().compute_log_prob(data)
        cosines = self.actor.mixer.cosines or Cosines()
        out.batch[STATISTICS] = cosines.row(len(out))
        out.batch[DEVIATIONS], out.batch[FARTHEST] = (self.actor.mixer.deviations or Deviations()).rows(len(out))
        return out

    @register(dispatch_mode=Dispatch.ONE_TO_ALL)
    def not_finite(self) -> str:
        """The first of this rank's weights that holds a NaN or an infinity; empty where all are finite."""
        for name, weight in self.actor_module_fsdp.named_parameters():
            part = weight.to_local() if isinstance(weight, DTensor) else weight
            if not bool(part.detach().isfinite().all()):
                return str(name)
        return ""

    @register(dispatch_mode=Dispatch.ONE_TO_ALL)
    def fingerprint(self, dtype: str) -> int:
        """The fingerprint of the policy's weights as a rollout engine of this dtype holds them."""
        weight = self.actor_module_fsdp.get_input_embeddings().weight.detach()
        if self._is_offload_param:
            weight = weight.to(get_device_name())  # a collective of GPUs needs it there
        whole = weight.full_tensor() if isinstance(weight, DTensor) else weight
        return int(fingerprint(whole, getattr(torch, dtype)))

    @register(dispatch_mode=Dispatch.ONE_TO_ALL)
    def export(self, out: str, base: str) -> None:
        """Write the policy to the folder `out`, with the base model's configuration and tokenizer; rank 0 writes."""
        from accelerate import init_empty_weights
        from transformers import AutoConfig, AutoModelForCausalLM

        if self._is_offload_param:
            load_fsdp_model_to_gpu(self.actor_module_fsdp)
        state = get_fsdp_full_state_dict(self.actor_module_fsdp, offload_to_cpu=True, rank0_only=True)
        if self._is_offload_param:
            offload_fsdp_model_to_cpu(self.actor_module_fsdp)
        if dist.get_rank() == 0:
            config = AutoConfig.from_pretrained(base, trust_remote_code=False)
            dtype = config.torch_dtype or torch.float32
            with init_empty_weights():
                shape = AutoModelForCausalLM.from_config(config, torch_dtype=dtype, trust_remote_code=False)
            with whole_folder(out) as part:
                shape.save_pretrained(part, state_dict={name: t.to(dtype) for name, t in state.items()})
                for file in Path(base).iterdir():
                    weights = file.suffix == ".safetensors" or file.name.endswith(".safetensors.index.json")
                    if file.is_file() and not weights and file.name != MODEL_CARD:
                        shutil.copy2(file, part / file.name)
        dist.barrier()
