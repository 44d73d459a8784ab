"""The strict, frozen base of every configuration model, and the types that several share."""

from typing import Annotated, Any, get_args, get_origin

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    model_validator,
)
from pydantic_core import InitErrorDetails, PydanticCustomError

ID = r"[a-z0-9][a-z0-9.-]*"
Id = Annotated[str, StringConstraints(pattern=f"^{ID}$")]


def _shown(text: str) -> str:
    if not text.strip():
        raise PydanticCustomError("shown", "nothing would be shown: write a text")
    return text


def _path(text: str) -> str:
    if not text.strip():
        raise PydanticCustomError("path", "an empty path names nothing")
    if "\0" in text:
        raise PydanticCustomError("path", "a path can't hold a null character")
    return text


Shown = Annotated[str, AfterValidator(_shown)]
"""A text that tables and the page show."""
PathText = Annotated[str, AfterValidator(_path)]
"""A path, as a user writes it."""


def _counted(value: Any) -> Any:
    if not isinstance(value, int) or isinstance(value, bool):
        raise PydanticCustomError("counted", "seeds are a number: 3 means the study's own seed and the two after it")
    return value


Seeds = Annotated[int, BeforeValidator(_counted), Field(ge=1)]
"""How many training seeds: the study's own, the next number, and so on. They are counted and not chosen, so that none
that came out badly can be left out."""


class Config(BaseModel):
    """Frozen, unknown keys refused, every field documented; attribute docstrings become the schema's descriptions.

    Numbers are finite. YAML's yes, on and true are no numbers, where pydantic would read them as 1.
    """

    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, protected_namespaces=(), allow_inf_nan=False
    )

    @model_validator(mode="before")
    @classmethod
    def _flags_are_no_numbers(cls, value: Any) -> Any:
        given = value if isinstance(value, dict) else {}
        for name, field in cls.model_fields.items():
            if _has_flag(given.get(name), field.annotation) and not _takes_flags(field.annotation):
                wrong = PydanticCustomError("flag", "a number or text is needed, not true or false (yes, no, on, off)")
                error = InitErrorDetails(type=wrong, loc=(name,), input=given[name])
                raise ValidationError.from_exception_data(cls.__name__, [error])
        return value


def _has_flag(value: Any, annotation: Any) -> bool:
    """Whether a value is true or false, or holds one; what another model holds is for that model."""
    held = value if isinstance(value, list | tuple) else (value,)
    if isinstance(value, dict) and get_origin(annotation) is dict:
        held = tuple(value.values())
    return any(isinstance(one, bool) for one in held)


def _takes_flags(annotation: Any) -> bool:
    """Whether a field's type has a place for true and false."""
    return annotation in (bool, Any) or any(map(_takes_flags, get_args(annotation)))


def unset(paper: object) -> BeforeValidator:
    """The paper's own value, said aloud, is the same spec as silence."""
    return BeforeValidator(lambda value: None if value == paper else value)
