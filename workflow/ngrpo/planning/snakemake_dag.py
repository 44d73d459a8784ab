"""Snakemake's own DAG of a study: what `snakemake -n TARGET` would show, as objects.

The only module that calls Snakemake. Its API prints a DAG but hands none out, so two of its methods are called that it
doesn't promise to keep (`_prepare_dag`, `_workflow`); tests/unit/test_plan.py fails where a new version lacks them.
Nothing is locked and nothing runs.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ngrpo.errors import UserError
from ngrpo.study.expand import Study
from ngrpo.study.layout import Results
from ngrpo.study.naming import DECIDE

SNAKEFILE = Path("Snakefile")


@contextmanager
def snakemake_dag(
    study: Study, results: Results, targets: tuple[str, ...], data_folder: Path | None = None, **settings: object
) -> Iterator[Any]:
    """Snakemake's DAG of these targets in this folder.

    data_folder: as in `--config data_folder=`; settings: more of what `--config` takes. Raises UserError where
    Snakemake or the Snakefile isn't here, and with Snakemake's own message where it plans nothing: a target that isn't
    known, a file that is missing.
    """
    try:
        from snakemake.api import SnakemakeApi
        from snakemake.exceptions import RuleException, WorkflowError
        from snakemake.settings.types import ConfigSettings, DAGSettings, OutputSettings, Quietness, ResourceSettings
    except ImportError:
        raise UserError("Snakemake isn't in this environment", where="ngrpo plan", do="use .venv/bin/ngrpo") from None
    if not SNAKEFILE.exists():
        raise UserError("there is no Snakefile here", where=Path.cwd(), do="go to the project's folder")
    config: dict[str, object] = {"config": str(study.folder), "scale": study.scale, "results": str(results.root.parent)}
    config |= {"data_folder": str(data_folder)} if data_folder else {}
    config |= {"decide": [name.removeprefix(DECIDE) for name in targets if name.startswith(DECIDE)]}
    config |= settings
    quiet = OutputSettings(dryrun=True, quiet={Quietness.ALL}, skip_plugin_handlers=True)
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
            workflow.async_run(workflow.dag.update_checkpoint_dependencies())
            yield workflow.dag
    except (WorkflowError, RuleException) as e:
        raise UserError(str(e).strip()) from None
