"""What verl trains on: our problem files as its dataset, and a data order that is a function of (seed, step).

verl's own dataset needs a chat template and its own parquet columns; its sampler's state must be saved to resume. Here
prompts come from `ngrpo.data.prompts`, as in sampling, and a step always gets the same problems: no state to resume.
"""

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import Dataset
from verl.experimental.dataset.sampler import AbstractSampler

from ngrpo.data.datasets import read_problems
from ngrpo.data.prompts import prompt_ids
from ngrpo.errors import UserError
from ngrpo.study.specs import RunSpec, read_spec
from ngrpo.training.verl import plugin


class Problems(Dataset):
    """A problem file, rendered and left-padded: verl's `data.custom_cls`.

    verl builds it before its trainer, so it is where the plugin is checked. Raises UserError where that didn't take.
    """

    def __init__(self, data_files, tokenizer, config, processor=None):
        plugin.check_task_runner()
        spec = read_spec(config.ngrpo.spec, RunSpec)
        path = Path(data_files if isinstance(data_files, str) else data_files[0])
        validation = path == Path(config.ngrpo.validation)
        self.dataset = spec.validation if validation else spec.data.dataset
        self.model, self.tokenizer, self.width = spec.model.model, tokenizer, config.max_prompt_length
        self.rows = read_problems(path)
        if validation:
            asked = self.rows[: self.dataset.dataset.limit]
            self.rows = [r for r in asked if len(self._prompt(r)) <= self.width]
        if not self.rows:
            raise UserError(f"no problem has a prompt of at most {self.width} tokens", where=path)

    def _prompt(self, row: dict[str, Any]) -> list[int]:
        return prompt_ids(self.tokenizer, self.model, self.dataset.dataset, row["problem"])

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        row = self.rows[index]
        ids = self._prompt(row)
        if len(ids) > self.width:
            raise UserError(f"problem '{row['id']}' has a prompt of {len(ids)} tokens, over {self.width}")
        missing = self.width - len(ids)
        mask = torch.tensor([0] * missing + [1] * len(ids))
        return {
            "input_ids": torch.tensor([self.tokenizer.pad_token_id] * missing + ids),
            "attention_mask": mask,
            "position_ids": (mask.cumsum(0) - 1).clamp(min=0),
            "raw_prompt_ids": ids,
            "data_source": self.dataset.id,
            "reward_model": {"style": "rule", "ground_truth": row["answer"]},
            "extra_info": {"index": index, "id": row["id"], "kind": row["kind"]},
            "index": index,
        }


class Order(AbstractSampler):
    """All steps' problems in order: each epoch its own permutation, cut to whole batches; `start` skips done steps."""

    def __init__(self, data_source, data_config):
        self.n, self.batch = len(data_source), data_config.train_batch_size
        self.seed, self.steps = data_config.ngrpo.seed, data_config.ngrpo.steps
        self.start = 0

    def __len__(self) -> int:
        return self.steps * self.batch

    def batch_of(self, step: int) -> list[int]:
        """The problems of step 1, 2, …"""
        per_epoch = self.n // self.batch
        epoch, at = divmod(step - 1, per_epoch)
        order = list(range(self.n))
        random.Random(f"{self.seed}/order/{epoch}").shuffle(order)
        return order[at * self.batch : (at + 1) * self.batch]

    def __iter__(self) -> Iterator[int]:
        step = self.start + 1
        while step <= self.steps:  # asked again at each step: a run may end early
            yield from self.batch_of(step)
            step += 1
