"""Prompts as they are rendered: how the instruction is joined, and the model's own template, token for token."""

import signal
from pathlib import Path

import pytest

from ngrpo.data.prompts import messages, open_tokenizer, prompt_ids
from ngrpo.errors import UserError
from ngrpo.stages.toy_base import FIELD, make_tokenizer
from ngrpo.study.sources import Dataset, FolderDataset, Model, ToyModel

pytestmark = pytest.mark.train

CHAT = Model(source=ToyModel(kind="toy"))
PLAIN = Model(source=ToyModel(kind="toy"), template="plain")
THINKING = "{{ 'Q:' + messages[0]['content'] }}{% if add_generation_prompt %}{{ 'A:<think>' }}{% endif %}"


def _dataset(kind: str = "math", instruction: str = "", examples: str | None = None) -> Dataset:
    source = FolderDataset(kind="folder", file="x")
    return Dataset(source=source, kind=kind, instruction=instruction, examples=examples)


@pytest.mark.parametrize(
    ("dataset", "text"),
    [
        (_dataset("math", "Box it."), "1? Box it."),
        (_dataset("choice", "Choose."), "1?\n\nChoose."),
        (_dataset("math"), "1?"),
        (_dataset("choice"), "1?"),
        (_dataset("number", " ="), "1? ="),
        (_dataset("number", " =", "2 = 2\n"), "2 = 2\n1? ="),
    ],
)
def test_the_instruction_follows_as_the_kind_asks(dataset: Dataset, text: str) -> None:
    assert messages(dataset, "1?") == [{"role": "user", "content": text}]


@pytest.mark.parametrize("template", [None, THINKING])
def test_ids_are_the_tokenizers_own_chat_template(template: str | None) -> None:
    tokenizer = make_tokenizer()
    tokenizer.chat_template = template or tokenizer.chat_template
    conversation = [{"role": "user", "content": "47+38"}]
    own = tokenizer.apply_chat_template(conversation, add_generation_prompt=True)
    assert prompt_ids(tokenizer, CHAT, _dataset(), "47+38") == own
    assert prompt_ids(tokenizer, PLAIN, _dataset(), "47+38") != own


def test_thinking_is_opened_where_the_template_has_it() -> None:
    tokenizer = make_tokenizer()
    assert not tokenizer.decode(prompt_ids(tokenizer, CHAT, _dataset(), "47+38")).endswith("<think>")
    tokenizer.chat_template = THINKING
    assert tokenizer.decode(prompt_ids(tokenizer, CHAT, _dataset(), "47+38")).endswith("A:<think>")


LOOP = "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}"


@pytest.mark.parametrize(
    ("template", "words"),
    [
        (LOOP, "writes no prompt within 0.3 s"),
        ("{{ raise_exception('one turn alone') }}", "fails: one turn alone"),
        ("{{ messages[7]['content'] }}", "fails: list object has no element 7"),
        ("{{ 1 // 0 }}", "fails: integer division or modulo by zero"),
        ("{{ ''.__class__.__mro__ }}", "fails: access to attribute"),
        ("{% if %}", "fails: Expected an expression"),
    ],
)
def test_a_template_that_writes_no_prompt_is_a_message(
    template: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ngrpo.data.prompts.TEMPLATE_SECONDS", 0.3)
    tokenizer = make_tokenizer()
    tokenizer.chat_template = template
    with pytest.raises(UserError, match=words):
        prompt_ids(tokenizer, CHAT, _dataset(), "47+38")
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)
    assert prompt_ids(tokenizer, PLAIN, _dataset(), "47+38")


def test_plain_is_the_text_as_it_is() -> None:
    tokenizer = make_tokenizer()
    assert tokenizer.decode(prompt_ids(tokenizer, PLAIN, _dataset(), "47+38")) == "47+38"


@pytest.mark.parametrize("problem", ["47+38", "47+38-16"])
def test_the_toys_template_pads_the_problem_to_its_field(problem: str) -> None:
    tokenizer = make_tokenizer()
    ids = prompt_ids(tokenizer, CHAT, _dataset(), problem)
    assert tokenizer.decode(ids) == f"<bos>Q:{problem}={'.' * (FIELD - len(problem))}A:"
    assert len(ids) == 1 + 1 + FIELD + 1 + 1


def test_a_saved_tokenizer_renders_the_same(tmp_path: Path) -> None:
    made = make_tokenizer()
    made.save_pretrained(tmp_path / "model")
    read = open_tokenizer(tmp_path / "model")
    assert prompt_ids(read, CHAT, _dataset(), "47+38") == prompt_ids(made, CHAT, _dataset(), "47+38")
    with pytest.raises(UserError, match=r"(?s)no tokenizer.*nowhere"):
        open_tokenizer(tmp_path / "nowhere")
