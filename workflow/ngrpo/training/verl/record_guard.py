"""The first of three guards: every record of a rollout is whole and its response's, or the step isn't trained on.

It asks before any forward pass, while the rows are in the order in which they were drawn, so that each one's seed is
known from its place alone. Whether the engine's model read what a record says, the actor compares (`actor.Deviations`);
what is in no record (a wrong temperature in a kernel) is the last guard's: `ngrpo.statistics.mismatch`.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from ngrpo.errors import UserError
from ngrpo.method.mixers import mixer_from
from ngrpo.method.neighbor_table import Table
from ngrpo.method.record_checks import RecordCheck
from ngrpo.method.rng import derive_seed
from ngrpo.training.verl.actor import KEY, SEEDS


class RecordGuard:
    """What a run's records must be. config: verl's whole configuration."""

    def __init__(self, config: Any):
        rollout = config.actor_rollout_ref.rollout
        self.own, self.group = rollout.ngrpo, rollout.n
        self.mixer = mixer = mixer_from(dict(self.own.exploration))
        table, digest = None, b""
        if mixer.needs_table and not self.own.get("refresh"):
            loaded = Table.load(Path(self.own.neighbors))
            table, digest = loaded.ids[:, : mixer.width].long(), loaded.digest
        self.check = RecordCheck(mixer, float(rollout.temperature), table, digest)

    def seeds(self, step: int, rows: int) -> list[int]:
        """The seeds of a rollout batch's requests, in the order of the whole batch."""
        return [derive_seed(self.own.seed, "rollout", step, row) for row in range(rows)]

    def examine(self, batch: Any, step: int, weights: int) -> None:
        """Raise UserError, naming problem and sample, where a record isn't what it must be.

        batch: a DataProto in the order in which it was drawn; gets its responses' seeds. weights: fingerprint of the
        trainer's.
        """
        responses, mask = batch.batch["responses"].cpu().numpy(), batch.batch["attention_mask"].cpu()
        width = responses.shape[1]
        lengths, starts = mask[:, -width:].sum(-1).tolist(), mask[:, :-width].sum(-1).tolist()
        seeds = self.seeds(step, len(responses))
        records = batch.non_tensor_batch.get(KEY, np.full(len(responses), None, object))
        rows = zip(records, responses, lengths, seeds, starts, strict=True)
        faults = [self.check.fault(r, text[:n], seed, start, weights) for r, text, n, seed, start in rows]
        faulty = [row for row, fault in enumerate(faults) if fault]
        if faulty:
            self._refuse(batch, step, faulty, faults[faulty[0]])
        batch.batch[SEEDS] = torch.tensor(seeds)

    def place(self, batch: Any, step: int, seed: int) -> str:
        """Which problem and sample the response with that seed is, in whatever order the batch is by now."""
        row = batch.batch[SEEDS].tolist().index(seed)
        return self._named(batch, row, self.seeds(step, len(batch)).index(seed))

    def _named(self, batch: Any, row: int, drawn: int) -> str:
        """The response in a row of the batch, by the place in which it was drawn."""
        about = batch.non_tensor_batch.get("extra_info")
        name = None if about is None else about[row].get("id")
        problem = f"prompt {drawn // self.group}" if name is None else f"problem '{name}'"
        return f"{problem}, sample {drawn % self.group + 1} of {self.group}"

    def _refuse(self, batch: Any, step: int, faulty: list[int], fault: str) -> None:
        more = f", and so for {len(faulty) - 1} more of {len(batch)} responses" if len(faulty) > 1 else ""
        raise UserError(
            f"a mixing record can't be replayed: {fault}",
            where=f"step {step}, {self._named(batch, faulty[0], faulty[0])}{more}",
            do="nothing of this step is trained on or saved; the same command goes on from the last checkpoint. If it "
            "happens again, the rollout engine loses or mistakes what it fed: report it with train.log",
        )
