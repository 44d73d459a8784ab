"""Engines are found by their folders' names, by the configuration too, which imports none of them."""

import sys
from pathlib import Path

import pytest
from pydantic import BaseModel

from ngrpo.errors import UserError
from ngrpo.study import engines
from ngrpo.study.engines import EngineName, engine_names
from ngrpo.study.reading import parse


class Named(BaseModel):
    """A configuration that names an engine."""

    engine: EngineName


def test_every_folder_with_an_engine_is_one_and_no_other_is() -> None:
    folder = Path(engines.__file__).parents[1] / "engines"
    assert engine_names() == ["sglang", "transformers"]
    assert {p.name for p in folder.iterdir() if p.is_dir() and p.name != "__pycache__"} == set(engine_names())


@pytest.mark.parametrize(
    ("name", "word"), [("sglan", "did you mean 'sglang'"), ("vllm", "known: sglang, transformers")]
)
def test_an_unknown_engine_is_refused_with_file_key_and_nearest_name(name: str, word: str) -> None:
    assert parse(Named, {"engine": "sglang"}, "toy.yaml").engine == "sglang"
    with pytest.raises(UserError, match=word) as error:
        parse(Named, {"engine": name}, "toy.yaml")
    assert error.value.where == "toy.yaml: engine"
    assert not any(module.startswith("ngrpo.engines") for module in sys.modules)


def test_a_new_folder_is_a_new_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "engines" / "quick").mkdir(parents=True)
    (tmp_path / "engines" / "quick" / "engine.py").touch()
    monkeypatch.setattr(engines, "__file__", str(tmp_path / "study" / "engines.py"))
    assert parse(Named, {"engine": "quick"}, "toy.yaml").engine == "quick"
