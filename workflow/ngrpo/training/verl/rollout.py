"""The rollout: verl's SGLangRollout with a seed and a mixer for every request, and records beside the responses.

Seeds are derived from (root seed, what for, global step, row in the whole batch): one rank, several ranks and tensor
parallelism draw the same, and a resumed run draws what an uninterrupted one would have.
"""

import functools
import itertools
import os
from pathlib import Path
from typing import Any

import numpy as np
import verl.workers.rollout.sglang_rollout.sglang_rollout as stock
from verl import DataProto
from verl.workers.rollout.sglang_rollout.sglang_rollout import AsyncEngine, SGLangRollout

from ngrpo.engines import sglang as plugin
from ngrpo.engines.model_folder import end_tokens
from ngrpo.engines.sglang import cpu
from ngrpo.errors import Unfinished, UserError
from ngrpo.method.mixers import Mixer, NoMixer, mixer_from
from ngrpo.method.rng import derive_seed
from ngrpo.training.verl.actor import KEY
from ngrpo.training.verl.replacing import check_built, replaced


class MixingEngine(AsyncEngine):
    """verl's engine with arguments that fit the machine, and our parameters in every request.

    limits: of requests and tokens. Safe: requests differ in nothing but their own parameters. Were it stock, no request
    would mix or be seeded, and the rollout finds no records.
    """

    def __init__(self, limits: dict[str, int], **arguments: Any):
        arguments["port"] = _free_port(arguments["port"])
        super().__init__(
            **cpu.server_arguments(
                {"random_seed": 0, "log_level": "error", **arguments, **limits, "trust_remote_code": False}
            )
        )
        self.pending: list[dict] | None = None

    async def async_generate(self, *args, sampling_params=None, **kwargs):
        """As sglang's; each request gets its own of the pending parameters."""
        if self.pending is not None:
            sampling_params = [{**sampling_params, "custom_params": own} for own in self.pending]
        return await super().async_generate(*args, sampling_params=sampling_params, **kwargs)

    async def update_weights_from_tensor(self, *args, **kwargs):
        """As verl's; a refused update is an error instead of a silent difference between trainer and rollout."""
        result = await super().update_weights_from_tensor(*args, **kwargs)
        done, message = (result[0], result[1]) if isinstance(result, tuple | list) else (result.success, result.message)
        if not done:
            raise UserError(f"sglang refused the trainer's weights: {message}", where="weight update")
        return result


def _free_port(first: int) -> int:
    """A port with room above it, so that several runs on one machine don't take each other's."""
    from sglang.srt.utils import is_port_available

    for port in range(first + os.getpid() % 97, 60_000, 97):
        if is_port_available(port):
            return port
    raise Unfinished("no free port for sglang", where=f"ports from {first}")


class MixingRollout(SGLangRollout):
    """Stock rollout, its requests seeded, mixed and recorded.

    Replaces verl's SGLangRollout, for `ReplayWorker`. Were it stock, the worker raises.
    """

    def __init__(self, actor_module: str, config, *args, **kwargs):
        self.run = config.ngrpo
        neighbors = Path(self.run.neighbors) if self.run.neighbors else None
        refresh = "update" if self.run.get("refresh") else "never"
        self.exploration: Mixer = mixer_from(dict(self.run.exploration))
        plugin.install(
            neighbors,
            model=Path(actor_module),
            mixers=[self.exploration],
            refresh=refresh,
            space=self.run.space,
        )
        engine = functools.partial(MixingEngine, dict(self.run.engine_limits))
        with replaced(stock, "AsyncEngine", engine):  # verl's constructor builds its engine
            super().__init__(actor_module, config, *args, **kwargs)
        if self._engine is not None:
            check_built(self._engine, MixingEngine, "engine")
        self.calls = itertools.count()
        self.ends = list(end_tokens(Path(actor_module)))

    def _init_distributed_env(self, *args, **kwargs) -> None:
        if cpu.on_cpu():
            os.environ["CUDA_VISIBLE_DEVICES"] = os.environ.get("RANK", "0")  # verl gathers it from all ranks
        super()._init_distributed_env(*args, **kwargs)

    def generate_sequences(self, prompts: DataProto, **kwargs) -> DataProto:
        """As stock; adds the records to the non-tensor part. Validation never mixes.

        The same tokens end a response in sglang (which reads config.json for them), in verl's mask (which reads
        generation_config.json) and in evaluation: those of all the model's files.
        """
        validating = prompts.meta_info.get("validate", False)
        purpose, mixer = ("validation", NoMixer()) if validating else ("rollout", self.exploration)
        step, rows = prompts.meta_info["global_steps"], len(prompts)
        group = self._rank // self._tp_size
        seeds = [derive_seed(self.run.seed, purpose, step, group * rows + row) for row in range(rows)]
        outputs: list[dict] = []

        stock_post = stock._post_process_outputs

        def collect(tokenizer, output):
            """verl's own, which drops what sglang says beside the tokens: the records are in it."""
            outputs.extend(output)
            return stock_post(tokenizer, output)

        if self._engine is not None:
            batch = (f"{purpose}-{step}-{group}-{next(self.calls)}", rows)
            self._engine.pending = [plugin.request_params(mixer, seed, batch) for seed in seeds]
        try:
            with replaced(stock, "_post_process_outputs", collect):
                prompts.meta_info["eos_token_id"] = self.ends
                out = super().generate_sequences(prompts, stop_token_ids=self.ends, **kwargs)
        finally:
            if self._engine is not None:
                self._engine.pending = None
        if len(outputs) != rows:
            raise UserError(f"verl handed on {len(outputs)} of {rows} responses", where=f"{purpose} of step {step}")
        if not validating:
            packed = [plugin.record_of(output).pack() for output in outputs]
            out.non_tensor_batch[KEY] = np.array(packed, dtype=object)
        return out
