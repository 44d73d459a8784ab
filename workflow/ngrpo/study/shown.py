"""What of the configuration a table, a notebook and the report show: another value makes them anew, and nothing else.

What is made for a changed spec is made anew, and so is what it is an input of. Here is the rest, such as titles, the k
of Pass@k, and whether a scale gives verdicts. Machines, folders and other names for the same results are in none of
them.
"""

from typing import Any

from ngrpo.files import digest, file_sha256
from ngrpo.study.expand import Study

UNSHOWN = (
    *("tables", "on_request", "demo", "targets", "threads", "checkpoint_every", "shard_samples", "keep_checkpoints"),
    *("seeds", "table_seeds", "max_seeds"),
)
"""Keys of a scale that no page depends on; its tables and seeds are shown by what they hold."""
IN_SPECS = ("models", "datasets", "training", "training_data", "validation")
"""Keys of a scale that a page shows as the specs have them."""
BESIDE = ("claims.yaml", "paper_values.yaml")
"""Files of the configuration folder that pages read, too: the claims that they end in, and the paper's values."""


def table_digest(study: Study, table: str) -> str:
    """Of what a table's numbers depend on beside its grades."""
    size = study.size
    cells = [[c.label, c.model, c.benchmark, c.evaluation] for c in study.cells[table]]
    return digest([cells, size.evaluation.model_dump(mode="json"), size.verdicts])


def page_digest(study: Study) -> str:
    """Of what the report and the notebooks show beside tables and diagnostics."""
    value: dict[str, Any] = {
        "specs": {name: spec.digest for name, spec in study.specs().items()},
        "tables": {name: table_digest(study, name) for name in study.size.tables},
        "titles": _titles(study),
        "paper": study.study.paper.model_dump(mode="json"),
        "settings": _settings(study),
        "size": study.size.model_dump(mode="json", exclude={*UNSHOWN, *IN_SPECS}),
        "order": [*study.runs, *study.evaluations, *study.size.tables],
    }
    if study.folder:
        paths = [study.folder / name for name in BESIDE]
        value["beside"] = {path.name: file_sha256(path) for path in paths if path.exists()}
    return digest(value)


def _titles(study: Study) -> dict[str, Any]:
    parts = {
        "methods": study.study.methods,
        "decodings": study.study.decodings,
        "tables": {name: study.study.tables[name] for name in study.size.tables},
        "models": study.size.models,
        "datasets": study.size.datasets,
    }
    return {kind: [[name, part.title] for name, part in named.items()] for kind, named in parts.items()}  # type: ignore[attr-defined]


def _settings(study: Study) -> dict[str, Any]:
    """What the tables' methods set themselves (the page says in what they depart from the paper), and their preset."""
    rows = [row for name in study.size.tables for row in study.study.tables[name].rows]
    methods = {row.method: study.study.methods[row.method] for row in rows if row.method is not None}
    return {
        "methods": {
            name: method.model_dump(mode="json", exclude_unset=True, exclude={"title"})
            for name, method in methods.items()
        },
        "presets": {name: m.fidelity for name, m in study.study.methods.items()},
        "seed": study.study.seed,
        "rows": [row.model_dump(mode="json", exclude={"policy": {"folder"}, "predictions": True}) for row in rows],
    }
