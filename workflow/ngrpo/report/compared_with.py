"""The system with which a table's others are compared."""

from collections.abc import Sequence

from ngrpo.study.expand import Study
from ngrpo.study.specs import RunSpec


def reference(study: Study, table: str, labels: Sequence[str]) -> str:
    """The first system that is trained and decoded without any mixing, as GRPO is; where none is, the table's first."""
    for cell in study.cells[table]:
        spec = study.evaluations[cell.evaluation]
        plain = isinstance(spec.policy, RunSpec) and spec.policy.exploration.kind == spec.decoding.mixer.kind == "none"
        if plain and cell.label in labels:
            return cell.label
    return labels[0]
