"""Another value for every key of the configuration: what tests of reruns walk through."""

import types
from collections.abc import Iterator
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel

from ngrpo.study.config import Row
from ngrpo.study.elsewhere import Policy


def other_value(annotation: Any, value: Any) -> Any:
    """Another value of a field's type."""
    origin, args = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return next(a for a in args if a != value)
    if origin in (Union, types.UnionType):
        return other_value(next(a for a in args if a is not type(None)), value)
    if hasattr(annotation, "__metadata__"):
        return other_value(args[0], value)
    if annotation is bool:
        return not value
    if annotation is int:
        return (value or 1) + 1
    if annotation is float:
        return (value or 1.0) * 0.875
    return f"{value or 'x'}2"


def walk(part: BaseModel, path: tuple[str | int, ...] = ()) -> Iterator[tuple[tuple[str | int, ...], BaseModel, str]]:
    """Every field below a model: (its path, the model that has it, its name)."""
    for name in type(part).model_fields:
        yield (*path, name), part, name
        value = getattr(part, name)
        items = (
            value.items()
            if isinstance(value, dict)
            else enumerate(value)
            if isinstance(value, tuple)
            else [("", value)]
        )
        for key, inner in items:
            if isinstance(inner, BaseModel):
                yield from walk(inner, (*path, name, *((key,) if key != "" else ())))


def changed(whole: dict[str, Any], path: tuple[str | int, ...], value: object) -> dict[str, Any]:
    """The same plain data with one value set."""
    first, *rest = path
    inner = whole[first] if isinstance(whole, list) else whole.get(first, {})
    new = changed(inner, tuple(rest), value) if rest else value
    if isinstance(whole, list):
        return [new if place == first else old for place, old in enumerate(whole)]  # type: ignore[return-value]
    return {**whole, first: new}


def is_free(part: Row | Policy, name: str) -> bool:
    """Whether a row or policy can have another value of this field: what is one of several can't get a second."""
    if isinstance(part, Policy):
        return name in ("base", "tokenizer") or getattr(part, name) is not None
    systems = [field for field in ("method", "policy", "predictions") if getattr(part, field) is not None]
    if name == "predictions" and part.decoding != "standard":
        return False
    if name == "decoding" and part.predictions is not None:
        return False
    return name not in ("method", "policy", "predictions") or systems in ([], [name])
