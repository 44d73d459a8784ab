"""The strict, frozen base of every configuration model, and the types that several share."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, StringConstraints

ID = r"[a-z0-9][a-z0-9.-]*"
Id = Annotated[str, StringConstraints(pattern=f"^{ID}$")]


class Config(BaseModel):
    """Frozen, unknown keys refused, every field documented; attribute docstrings become the schema's descriptions."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, protected_namespaces=())
