"""Which values of a spec have changed since its file was written."""

import json
from collections.abc import Iterator

from ngrpo.study.specs import Spec

SHOWN = 3  # values that are named; the others are counted


def changed_values(spec: Spec, written: object) -> str:
    """The values in which a spec differs from the one that was written for its results; empty where in none.

    written: the old file's JSON value. A value that several parts of the spec repeat (a run's model, and its data's) is
    named once.
    """
    old, new = dict(_flat(written)), dict(_flat(spec.json_value()))
    changes = {k: (old.get(k, "unset"), new.get(k, "unset")) for k in dict.fromkeys((*old, *new))}
    changes = {k: (a, b) for k, (a, b) in changes.items() if a != b}
    longest_first = sorted(changes, key=len, reverse=True)
    keys = list({(*k.split(".")[-3:], *changes[k]): k for k in longest_first}.values())[::-1]
    named = [f"{k} {' → '.join(changes[k])}" for k in keys[:SHOWN]]
    return ", ".join(named) + (f" and {len(keys) - SHOWN} more" if len(keys) > SHOWN else "")


def _flat(value: object, prefix: str = "") -> Iterator[tuple[str, str]]:
    """A nested JSON value as (dotted key, text); items of a list under their ids."""
    if isinstance(value, list) and value and all(isinstance(item, dict) and "id" in item for item in value):
        value = {item["id"]: item for item in value}
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _flat(inner, f"{prefix}.{key}" if prefix else str(key))
    else:
        yield prefix, json.dumps(value, ensure_ascii=False)
