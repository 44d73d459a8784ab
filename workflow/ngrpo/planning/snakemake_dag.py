"""Snakemake's own DAG of a study: what `snakemake -n TARGET` would show, as objects.

The only module that calls Snakemake. Its API prints a DAG but hands none out, so two of its methods are called that it
doesn't promise to keep (`_prepare_dag`, `_workflow`); tests/unit/test_plan.py fails where a new version lacks them.
Nothing is locked and nothing runs. Reading the Snakefile writes spec files, as every start of Snakemake does: those
that were there are put back as they were, so that asking twice gives the same answer.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ngrpo.errors import UserError
from ngrpo.files import whole_file
from ngrpo.study.expand import Study
from ngrpo.study.layout import Results

SNAKEFILE = Path("Snakefile")


@dataclass(frozen=True)
class SpecFiles:
    """The study's spec files before Snakemake was asked: path → text and time; those not there are left out."""

    files: dict[Path, tuple[str, int]]

    @classmethod
    def read(cls, study: Study, results: Results) -> "SpecFiles":
        """As they are now."""
        paths = [path for name in study.specs() if (path := results.root / name).exists()]
        return cls({path: (path.read_text(encoding="utf-8"), path.stat().st_mtime_ns) for path in paths})

    def put_back(self) -> None:
        """Those that were rewritten, with their times."""
        for path, (text, time) in self.files.items():
            if path.stat().st_mtime_ns != time:
                with whole_file(path) as temporary:
                    temporary.write_text(text, encoding="utf-8")
                os.utime(path, ns=(time, time))


@contextmanager
def snakemake_dag(
    study: Study, results: Results, targets: tuple[str, ...], data_folder: Path | None = None
) -> Iterator[tuple[Any, SpecFiles]]:
    """Snakemake's DAG of these targets in this folder, and the spec files as they were before.

    data_folder: as in `--config data_folder=`. Raises UserError where Snakemake or the Snakefile isn't here, and with
    Snakemake's own message where it plans nothing: a target that isn't known, a file that is missing.
    """
    try:
        from snakemake.api import SnakemakeApi
        from snakemake.exceptions import RuleException, WorkflowError
        from snakemake.settings.types import ConfigSettings, DAGSettings, OutputSettings, Quietness, ResourceSettings
    except ImportError:
        raise UserError("Snakemake isn't in this environment", where="ngrpo plan", do="use .venv/bin/ngrpo") from None
    if not SNAKEFILE.exists():
        raise UserError("there is no Snakefile here", where=Path.cwd(), do="go to the project's folder")
    config = {"config": str(study.folder), "scale": study.scale, "results": str(results.root.parent)}
    config |= {"data_folder": str(data_folder)} if data_folder else {}
    quiet = OutputSettings(dryrun=True, quiet={Quietness.ALL}, skip_plugin_handlers=True)
    before = SpecFiles.read(study, results)
    try:
        with SnakemakeApi(quiet) as api:
            asked = api.workflow(
                resource_settings=ResourceSettings(cores=1),
                config_settings=ConfigSettings(config=config),
                snakefile=SNAKEFILE,
            )
            asked.dag(DAGSettings(targets=frozenset(targets), force_incomplete=True))
            workflow = asked._workflow
            workflow._prepare_dag(forceall=False, ignore_incomplete=False, lock_warn_only=True, nolock=True)
            workflow.async_run(workflow.dag.init())
            yield workflow.dag, before
    except (WorkflowError, RuleException) as e:
        raise UserError(str(e).strip()) from None
    finally:
        before.put_back()
