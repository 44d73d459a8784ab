"""Plain data to configuration models: the first mistake becomes one UserError with file, key and the nearest name."""

import re
from copy import deepcopy
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError

from ngrpo.errors import UserError, nearest_name
from ngrpo.foreign import quoted_value, read_text
from ngrpo.terminal import quoted

MOST_BYTES, MOST_NODES, DEEPEST = 2**20, 100_000, 64
"""A configuration file's size, its values once every alias is written out, and its levels."""

MERGE = "tag:yaml.org,2002:merge"
OCTAL = re.compile(r"0[0-7_]+")


class _Loader(yaml.SafeLoader):
    """YAML that refuses a key given twice in one mapping, deep nesting, and aliases that multiply."""

    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        """As yaml's, down to a depth."""
        self.depth += 1
        if self.depth > DEEPEST:
            raise UserError(f"nested deeper than {DEEPEST} levels")
        node: yaml.Node | None = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def get_single_node(self) -> yaml.Node | None:
        """The document, once it is known that it stays small with every alias written out."""
        document: yaml.Node | None = super().get_single_node()
        if document is not None and _written_out(document, {}) > MOST_NODES:
            raise UserError("aliases (*name) multiply beyond all measure", do="write the values out")
        return document


def _written_out(node: yaml.Node, known: dict[int, int]) -> int:
    """How many nodes there are with every alias written out; one that holds itself counts as too many."""
    if id(node) not in known:
        known[id(node)] = MOST_NODES + 1  # until it is counted: an alias that leads back here has no end
        parts = node.value if isinstance(node, yaml.CollectionNode) else ()
        inner = [part for pair in parts for part in pair] if isinstance(node, yaml.MappingNode) else parts
        known[id(node)] = 1 + sum(_written_out(part, known) for part in inner)
    return known[id(node)]


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    seen: dict[Any, int] = {}
    for key_node, _ in node.value:
        if key_node.tag == MERGE:  # `<<: *anchor`: what the mapping itself says goes before what it takes over
            continue
        if not isinstance(key_node, yaml.ScalarNode):
            line = f"line {key_node.start_mark.line + 1}"
            raise UserError("a key that is no single word", where=line, do="write key: value")
        key = loader.construct_object(key_node)
        if key in seen:
            raise UserError(
                f"the key '{key}' is given twice",
                where=f"lines {seen[key]} and {key_node.start_mark.line + 1}",
                do="keep one of them",
            )
        seen[key] = key_node.start_mark.line + 1
    return loader.construct_mapping(node, deep=True)


def _number(loader: _Loader, node: yaml.ScalarNode) -> int | float:
    """A number, but none that YAML 1.1 reads as another than most people do: 010 is 8, 1:30 is 90."""
    text = node.value.lstrip("+-")
    base = "base 8" if OCTAL.fullmatch(text) else "base 60" if ":" in text else None
    value: int | float = getattr(loader, f"construct_yaml_{node.tag.rpartition(':')[2]}")(node)
    if base:
        line = f"line {node.start_mark.line + 1}"
        raise UserError(f"{node.value} is {value} in YAML ({base})", where=line, do=f"write {value}, or '{node.value}'")
    return value


_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)
_Loader.add_constructor("tag:yaml.org,2002:int", _number)
_Loader.add_constructor("tag:yaml.org,2002:float", _number)

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
        elif first["type"] in ("tuple_type", "list_type"):
            what, do = f"a list is needed: {quoted_value(first['input'])}", "write it in brackets, such as [one, other]"
        else:
            what = f"{first['msg'][0].lower()}{first['msg'][1:]}: {quoted_value(first['input'])}"
        raise UserError(what, where=f"{source}: {key}", do=do) from None


@lru_cache(maxsize=16)
def _plain(text: str) -> Any:
    """A YAML document's plain data: the same for the same text, which several readers of one command read."""
    return _Loader(text).get_single_data()


def read_yaml(model: type[M], path: Path) -> M:
    """A configuration file as its model."""
    if not path.exists():
        raise UserError("there is no such configuration file", where=path)
    text = read_text(path, MOST_BYTES)
    try:
        value = deepcopy(_plain(text))
    except UserError as e:  # of the text alone: it knows lines, but no file
        raise UserError(e.what, where=f"{path}: {e.where}" if e.where else path, do=e.do) from None
    except yaml.YAMLError as e:
        raise UserError(f"not readable as YAML: {e}", where=path) from None
    except (ValueError, OverflowError) as e:  # a day that no calendar has, a number of too many digits
        raise UserError(f"not readable as YAML: {quoted(e)}", where=path) from None
    return parse(model, value, path)
