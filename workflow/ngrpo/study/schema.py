"""JSON schemas of the configuration files, generated from the models, so that editors complete and check them."""

from pathlib import Path

from ngrpo.files import canonical_json, whole_file
from ngrpo.study.base import Config
from ngrpo.study.config import ScaleFile, StudyFile
from ngrpo.study.declared_costs import CostsFile

SCHEMAS: dict[str, type[Config]] = {
    "study.schema.json": StudyFile,
    "scale.schema.json": ScaleFile,
    "costs.schema.json": CostsFile,
}


def schema_texts() -> dict[str, str]:
    """Each schema file's name and text."""
    return {name: canonical_json(model.model_json_schema()) for name, model in SCHEMAS.items()}


def write_schemas(folder: Path) -> list[Path]:
    """Write them all; returns their paths."""
    paths = []
    for name, text in schema_texts().items():
        with whole_file(folder / name) as part:
            part.write_text(text, encoding="utf-8")
        paths.append(folder / name)
    return paths
