"""Prompts: a problem and its instruction, as one user turn in the model's own template (paper §4.1).

Mathematics: the problem, a space, the instruction. Multiple choice: the question with its options, a blank line, the
instruction. A number: the problem and the instruction. A data set's examples stand before. Training, filtering and
sampling render through this module alone.
"""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from ngrpo.errors import UserError
from ngrpo.study.sources import Dataset, Model
from ngrpo.terminal import quoted

_BETWEEN = {"math": " ", "choice": "\n\n", "number": ""}
TEMPLATE_SECONDS = 10.0
"""Within which a chat template has to write one prompt; such programs take a millisecond."""


def open_tokenizer(model: Path) -> Any:
    """The tokenizer of a Hugging Face folder. Raises UserError where there is none."""
    from transformers import AutoTokenizer

    if not (model / "tokenizer_config.json").exists():
        raise UserError("there is no tokenizer here", where=model, do="name a model folder that `ngrpo model` made")
    return AutoTokenizer.from_pretrained(model, trust_remote_code=False)


def messages(dataset: Dataset, problem: str) -> list[dict[str, str]]:
    """The conversation that asks this problem."""
    text = f"{problem}{_BETWEEN[dataset.kind]}{dataset.instruction}" if dataset.instruction else problem
    return [{"role": "user", "content": f"{dataset.examples or ''}{text}"}]


def prompt_ids(tokenizer: Any, model: Model, dataset: Dataset, problem: str) -> list[int]:
    """Token ids of the prompt: the chat template with its generation prompt, or (template: plain) the text as it is."""
    conversation = messages(dataset, problem)
    if model.template == "plain":
        return list(tokenizer.encode(conversation[0]["content"]))
    from jinja2.exceptions import TemplateError

    try:
        with _time_limit(TEMPLATE_SECONDS):
            return list(tokenizer.apply_chat_template(conversation, add_generation_prompt=True, tokenize=True))
    except TimeoutError:
        what = f"the chat template writes no prompt within {TEMPLATE_SECONDS:g} s"
    except (TemplateError, ArithmeticError, LookupError, MemoryError, TypeError) as e:
        what = f"the chat template fails: {quoted(e) or type(e).__name__}"
    where = tokenizer.name_or_path or "the tokenizer"
    raise UserError(what, where=where, do="look at chat_template in that folder, or set `template: plain`")


@contextmanager
def _time_limit(seconds: float) -> Iterator[None]:
    """Raise TimeoutError in the block after so long: sandboxed templates may loop, and do so in Python, which heeds
    signals. Outside the main thread, where there are none, without a limit."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def late(number: int, frame: FrameType | None) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
