"""Prompts: a problem and its instruction, as one user turn in the model's own template (paper §4.1).

Mathematics: the problem, a space, the instruction. Multiple choice: the question with its options, a blank line, the
instruction. Training, filtering and sampling render through this module alone.
"""

from pathlib import Path
from typing import Any

from ngrpo.errors import UserError
from ngrpo.study.sources import Dataset, Model


def open_tokenizer(model: Path) -> Any:
    """The tokenizer of a Hugging Face folder. Raises UserError where there is none."""
    from transformers import AutoTokenizer

    if not (model / "tokenizer_config.json").exists():
        raise UserError("there is no tokenizer here", where=model, do="name a model folder that `ngrpo model` made")
    return AutoTokenizer.from_pretrained(model, trust_remote_code=False)


def messages(dataset: Dataset, problem: str) -> list[dict[str, str]]:
    """The conversation that asks this problem."""
    between = " " if dataset.kind == "math" else "\n\n"
    text = f"{problem}{between}{dataset.instruction}" if dataset.instruction else problem
    return [{"role": "user", "content": text}]


def prompt_ids(tokenizer: Any, model: Model, dataset: Dataset, problem: str) -> list[int]:
    """Token ids of the prompt: the chat template with its generation prompt, or (template: plain) the text as it is."""
    conversation = messages(dataset, problem)
    if model.template == "plain":
        return list(tokenizer.encode(conversation[0]["content"]))
    return list(tokenizer.apply_chat_template(conversation, add_generation_prompt=True, tokenize=True))
