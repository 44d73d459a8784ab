"""Is a record whole, and its response's? Decided with certainty, in any precision, before any forward pass.

The gate is a pure function of (seed, position), so which steps a record must hold is known without it (Eq. 11;
`Mixer.mixed_steps`). The rest a record says itself: the request's seed, its text, its settings and its engine's
weights.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from ngrpo.errors import UserError
from ngrpo.method.mixers import Mixer
from ngrpo.method.records import Record, response_digest, settings_digest


@dataclass(frozen=True)
class RecordCheck:
    """What a run's records must agree with.

    table (V, k): the neighbors that the mixer looks up; None where it looks none up, or where they follow the weights.
    table_digest: of the file that they are from.
    """

    mixer: Mixer
    temperature: float
    table: Tensor | None = None
    table_digest: bytes = b""

    @cached_property
    def settings(self) -> bytes:
        """What every record's settings must be."""
        return settings_digest(self.mixer, self.temperature, self.table_digest)

    def fault(self, packed: object, tokens: np.ndarray, seed: int, start: int, weights: int = 0) -> str:
        """What is wrong with the record of a response, in words; empty where nothing is.

        tokens: the response's (T,), unpadded; seed: its request's; start: tokens of its prompt; weights: fingerprint of
        the trainer's, 0: not to be compared.
        """
        if not isinstance(packed, bytes) or not packed:
            return "there is no record"
        try:
            record = Record.unpack(packed)
        except UserError as error:
            return error.what
        return self._foreign(record, tokens, seed, start, weights) or self._steps(record, tokens)

    def _foreign(self, record: Record, tokens: np.ndarray, seed: int, start: int, weights: int) -> str:
        """Whether the record is another response's, engine's or setting's."""
        origin = record.origin
        if origin.seed != seed:
            return f"the record is another response's: its seed is {origin.seed}, this one's is {seed}"
        if record.length != len(tokens) or record.digest != response_digest(tokens):
            return f"the record is of another text, of {record.length} tokens; this one has {len(tokens)}"
        if origin.settings != self.settings:
            return "the record was made with another mixer, temperature or neighbor table than the run's"
        if origin.start != start:
            return f"the record begins at position {origin.start}, after a prompt of {start} tokens"
        if weights and origin.weights != weights:
            return "the response was drawn with other weights than the trainer's: the engine missed an update"
        return ""

    def _steps(self, record: Record, tokens: np.ndarray) -> str:
        """Whether it holds the steps that were mixed, each with what may have been fed there."""
        index, text = record.index, torch.from_numpy(np.asarray(tokens, np.int64))
        must = self.mixer.mixed_steps(text, record.origin.seed, record.origin.start).numpy()
        if len(index) and not (index[0] >= 0 and index[-1] < len(must) and (np.diff(index) > 0).all()):
            return f"the record's steps aren't ascending within the {len(must)} that fed anything"
        has = record.mixed()
        if not np.array_equal(has, must):
            at = int(np.flatnonzero(has != must)[0])
            what = "is missing from" if must[at] else "was not mixed and is in"
            return f"step {at} {what} the record ({has.sum()} steps of {must.sum()})"
        if record.sketches is not None and len(record.sketches) != must.sum():
            return f"the record has {len(record.sketches)} sketches of {must.sum()} mixed steps"
        if self.mixer.writes_first_candidate and (other := np.flatnonzero(record.ids[:, 0] != tokens[index])).size:
            at = int(index[other[0]])
            return f"the record's anchor at step {at} isn't the token that was written there"
        if self.table is not None and len(index):
            known = self.mixer.candidates(torch.from_numpy(record.ids[:, 0]), self.table).numpy()
            if not np.array_equal(known, record.ids):
                return "the record's candidates aren't its anchors' neighbors in the run's table"
        return ""
