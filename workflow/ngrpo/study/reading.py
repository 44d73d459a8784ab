"""Plain data to configuration models: the first mistake becomes one UserError with file, key and the nearest name."""

from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError

from ngrpo.errors import UserError, nearest_name

MERGE = "tag:yaml.org,2002:merge"


class _Loader(yaml.SafeLoader):
    """YAML that refuses a key given twice in one mapping."""


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    seen: dict[Any, int] = {}
    for key_node, _ in node.value:
        if key_node.tag == MERGE:  # `<<: *anchor`: what the mapping itself says goes before what it takes over
            continue
        key = loader.construct_object(key_node)
        if key in seen:
            raise UserError(
                f"the key '{key}' is given twice",
                where=f"{loader.name}: lines {seen[key]} and {key_node.start_mark.line + 1}",
                do="keep one of them",
            )
        seen[key] = key_node.start_mark.line + 1
    return loader.construct_mapping(node, deep=True)


_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)

M = TypeVar("M", bound=BaseModel)
_CONTAINERS = (dict, list, tuple)


def _model_in(annotation: Any, kind: str | None = None) -> Any:
    """The annotation's model among its alternatives (such as `X | None`, or of this kind); else the annotation."""
    candidates = [annotation, *(get_args(annotation) if get_origin(annotation) not in _CONTAINERS else ())]
    models = [c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel)]
    of_this_kind = [
        m for m in models if kind and "kind" in m.model_fields and kind in get_args(m.model_fields["kind"].annotation)
    ]
    return next(iter([*of_this_kind, *models]), annotation)


def _fields_at(model: type[BaseModel], location: tuple[int | str, ...]) -> list[str]:
    """The keys that are valid beside the last part of a validation error's location."""
    current: Any = model
    for part, after in pairwise(location):
        if isinstance(current, type) and issubclass(current, BaseModel):
            if current.model_fields.get("kind") and part in get_args(current.model_fields["kind"].annotation):
                continue  # the part says which of several models the value is
            field = current.model_fields.get(str(part))
            current = _model_in(field.annotation if field else None, str(after))
        elif get_origin(current) is dict:  # the part is a key, or an index below
            current = _model_in(get_args(current)[1])
        elif get_origin(current) in _CONTAINERS:
            current = _model_in(get_args(current)[0])
    return list(current.model_fields) if isinstance(current, type) and issubclass(current, BaseModel) else []


def parse(model: type[M], value: Any, source: Path | str) -> M:
    """A configuration model from plain data; the first mistake becomes a UserError naming file and key."""
    try:
        return model.model_validate(value)
    except ValidationError as e:
        # a misspelled key is both unknown and missing: what the user wrote comes first
        first = min(e.errors(), key=lambda error: error["type"] != "extra_forbidden")
        key = ".".join(str(p) for p in first["loc"])
        do = None
        if first["type"] == "extra_forbidden":
            what = f"unknown key '{first['loc'][-1]}'"
            known = _fields_at(model, first["loc"])
            near = nearest_name(str(first["loc"][-1]), known)
            do = f"did you mean '{near}'?" if near else f"known here: {', '.join(known)}" if known else None
        elif first["type"] == "missing":
            what = f"the key '{first['loc'][-1]}' is missing"
        else:
            what = f"{first['msg'][0].lower()}{first['msg'][1:]}: {first['input']!r:.80}"
        raise UserError(what, where=f"{source}: {key}", do=do) from None


def read_yaml(model: type[M], path: Path) -> M:
    """A configuration file as its model."""
    try:
        with open(path, encoding="utf-8") as f:
            value = yaml.load(f, _Loader)
    except FileNotFoundError:
        raise UserError("there is no such configuration file", where=path) from None
    except yaml.YAMLError as e:
        raise UserError(f"not readable as YAML: {e}", where=path) from None
    return parse(model, value, path)
