"""The configuration reference (docs/configuration.md), generated from the models: every key, type, default, meaning.

Text comes from the models' docstrings alone, so that a field and its description change together; `make docs` writes
the page, and a test compares it with what is committed.
"""

import inspect
import re
import types
from collections.abc import Iterator
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import annotated_types
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

PLAIN = {int: "integer", float: "number", str: "text", bool: "true or false", type(None): "empty", Any: "anything"}
BOUNDS = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}


def reference_text(files: dict[str, tuple[str, type[BaseModel]]]) -> str:
    """The page. files: each file's heading, an introduction, and the model of its content, in the page's order."""
    parts = [
        "# Configuration reference",
        "<!-- Generated from the models by `make docs`: edit their docstrings, not this page. -->",
        "Every key of every configuration file. An unknown key or a value of another type is an error that names\n"
        "file, key and the nearest valid name. *Required* keys have no default; *empty* is YAML's `null`, or nothing\n"
        "after the colon. An id is made of small letters, digits, dots and hyphens; no two things have one name.",
    ]
    shown: set[type[BaseModel]] = set()
    for heading, (introduction, model) in files.items():
        parts += [f"## {heading}", introduction, _table(model)]
        for part in models_in(model):
            if part not in shown and part is not model:
                shown.add(part)
                parts += [f"### {part.__name__}", *_paragraphs(part), _table(part)]
    return "\n\n".join(parts) + "\n"


def field_names(model: type[BaseModel]) -> Iterator[tuple[str, ...]]:
    """Every key of a model and of the models in it, each as the path of keys that leads to it (ids left out)."""
    for name, field in model.model_fields.items():
        yield (name,)
        for part in _direct(field.annotation):
            for path in field_names(part):
                yield (name, *path)


def undocumented(model: type[BaseModel]) -> list[str]:
    """Fields of a model and of the models in it that have no description, but for the `kind` that chooses a model."""
    return [
        f"{m.__name__}.{name}"
        for m in (model, *models_in(model))
        for name, field in m.model_fields.items()
        if not field.description and name != "kind"
    ]


def _direct(annotation: Any) -> Iterator[type[BaseModel]]:
    """The models that an annotation names."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    elif get_origin(annotation) is not Literal:
        for part in get_args(annotation):
            yield from _direct(part)


def models_in(model: type[BaseModel]) -> list[type[BaseModel]]:
    """The models that a model is made of, depth first, each once."""
    models: dict[type[BaseModel], None] = {}

    def visit(current: type[BaseModel]) -> None:
        for field in current.model_fields.values():
            for part in _direct(field.annotation):
                if part not in models:
                    models[part] = None
                    visit(part)

    visit(model)
    return list(models)


def _paragraphs(model: type[BaseModel]) -> list[str]:
    return [" ".join(p.split()) for p in (inspect.getdoc(model) or "").split("\n\n") if p.strip()]


def _table(model: type[BaseModel]) -> str:
    rows = ["| key | type | default | meaning |", "|---|---|---|---|"]
    for name, field in model.model_fields.items():
        meaning = re.sub(r"\bNone\b", "empty", " ".join((field.description or "").split()))
        meaning = meaning.replace("|", "\\|").replace("<", "\\<")
        rows.append(f"| `{name}` | {_type(field.annotation)}{_bounds(field)} | {_default(field)} | {meaning} |")
    return "\n".join(rows)


def _type(annotation: Any) -> str:
    origin, args = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _type(args[0])
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return f"[{annotation.__name__}](#{annotation.__name__.lower()})"
    if origin is Literal:
        return " \\| ".join(f"`{_plain(value)}`" for value in args)
    if origin in (Union, types.UnionType):
        return " or ".join(_type(arg) for arg in args)
    if origin is dict:
        return f"{_key(args[0])}: {_type(args[1])}, …"
    if origin is tuple:
        return f"list of: {_type(args[0])}" if args[-1] is Ellipsis else f"[{', '.join(map(_type, args))}]"
    return PLAIN.get(annotation, getattr(annotation, "__name__", str(annotation)))


def _key(annotation: Any) -> str:
    return _type(annotation) if get_origin(annotation) is Literal else "id"


def _bounds(field: FieldInfo) -> str:
    limits = [f"{sign} {getattr(m, name)}" for m in field.metadata for name, sign in BOUNDS.items() if hasattr(m, name)]
    lengths = ["not empty" for m in field.metadata if isinstance(m, annotated_types.MinLen) and m.min_length]
    return f", {', '.join(limits + lengths)}" if limits or lengths else ""


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "*required*"
    value = field.default_factory() if field.default_factory else field.default  # type: ignore[call-arg]
    if value is PydanticUndefined or value is None:
        return "*empty*"
    if isinstance(value, BaseModel):
        return f"its defaults{f' (`kind: {value.kind}`)' if hasattr(value, 'kind') else ''}"
    return f"`{_plain(value)}`"


def _plain(value: Any) -> str:
    """A default as YAML writes it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(_plain(v) for v in value)}]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{k}: {_plain(v)}" for k, v in value.items()) + "}"
    return f"{value:g}" if isinstance(value, float) else str(value) if value != "" else '""'
