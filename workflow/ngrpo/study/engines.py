"""Which engines there are: every folder of `ngrpo.engines` with an engine.py, known by its name, imported by nobody."""

from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, WithJsonSchema
from pydantic_core import PydanticCustomError

from ngrpo.errors import name_hint


def engine_names() -> list[str]:
    """The names that `ngrpo.engines.open_engine` knows."""
    return sorted(path.parent.name for path in (Path(__file__).parents[1] / "engines").glob("*/engine.py"))


def _known(name: str) -> str:
    names = engine_names()
    if name not in names:
        advice = name_hint(name, names)
        raise PydanticCustomError("unknown_engine", "there is no such engine, {advice}", {"advice": advice})
    return name


EngineName = Annotated[str, AfterValidator(_known), WithJsonSchema({"enum": engine_names(), "type": "string"})]
