"""The strict, frozen base of every configuration model, and the types that several share."""

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints
from pydantic_core import PydanticCustomError

ID = r"[a-z0-9][a-z0-9.-]*"
Id = Annotated[str, StringConstraints(pattern=f"^{ID}$")]


def _counted(value: Any) -> Any:
    if not isinstance(value, int) or isinstance(value, bool):
        raise PydanticCustomError("counted", "seeds are a number: 3 means the study's own seed and the two after it")
    return value


Seeds = Annotated[int, BeforeValidator(_counted), Field(ge=1)]
"""How many training seeds: the study's own, the next number, and so on. They are counted and not chosen, so that none
that came out badly can be left out."""


class Config(BaseModel):
    """Frozen, unknown keys refused, every field documented; attribute docstrings become the schema's descriptions."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, protected_namespaces=())


def unset(paper: object) -> BeforeValidator:
    """The paper's own value, said aloud, is the same spec as silence."""
    return BeforeValidator(lambda value: None if value == paper else value)
