"""A toy study whose every output is there, in a clone of the project, as Snakemake has it: for tests of reruns."""

import contextlib
import shutil
import subprocess
import sys
from pathlib import Path

import yaml
from synthetic_study import ROOT, make_study

from ngrpo.planning.snakemake_dag import snakemake_dag
from ngrpo.study.expand import Study, load_study
from ngrpo.study.layout import Results

LINKED = ("Snakefile", "rules", "workflow", "notebooks", "envs")


class FinishedStudy:
    """The clone: its configuration may be edited, and Snakemake asked what it would run."""

    def __init__(self, folder: Path, tables: tuple[str, ...] = ("main",), *, touched: bool = True, seeds: int = 1):
        self.folder, self.config, self.results = folder, folder / "config", folder / "results"
        study = make_study(folder / "made", tables=tables, problems=2, seeds=seeds)
        shutil.move(folder / "made" / "config", self.config)
        shutil.move(folder / "made", self.results)
        (self.config / "costs.yaml").write_bytes((ROOT / "config" / "costs.yaml").read_bytes())
        for name in LINKED:
            (folder / name).symlink_to(ROOT / name)
        for path in _outputs(study, Results(self.results / "toy")):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        if touched:  # else Snakemake has files and their times, and no records of its own
            done = self.snakemake("all", "--touch")
            assert done.returncode == 0, done.stdout

    def snakemake(self, *words: str, settings: tuple[str, ...] = ()) -> subprocess.CompletedProcess:
        """Run Snakemake in the clone; what it said is in stdout."""
        command = [
            sys.executable,
            "-m",
            "snakemake",
            *words,
            "--cores",
            "1",
            *(["--config", *settings] if settings else []),
        ]
        streams = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        return subprocess.run(command, cwd=self.folder, check=False, **streams)

    def planned(self, target: str = "all", data_folder: Path | None = None, **settings: object) -> set[str]:
        """The stages with a job that Snakemake would run, asked in this process. settings: as `--config` takes."""
        with contextlib.chdir(self.folder):
            files = Results(Path("results/toy"))  # as Snakemake names them: its records are by path
            study = load_study(Path("config"), "toy", files.root)
            with snakemake_dag(study, files, (target,), data_folder, **settings) as dag:
                rules = {job.rule.name.split("-")[0] for job in dag.needrun_jobs() if not job.rule.norun}
        return rules

    def edit(self, name: str, **changes: object) -> None:
        """Set keys (a__b for b of a) of a configuration file."""
        value = yaml.safe_load((self.config / name).read_text())
        for key, new in changes.items():
            *path, last = key.split("__")
            part = value
            for step in path:
                part = part[step]
            part[last] = new
        (self.config / name).write_text(yaml.safe_dump(value, sort_keys=False))

    def study(self) -> Study:
        """As it is configured now."""
        return load_study(self.config, "toy", self.results / "toy")


def _outputs(study: Study, files: Results) -> list[Path]:
    """What jobs write, in an order in which they could."""
    trained = {model: files.training_data(data.dataset.id, model) for model, data in study.training_data.items()}
    runs, evaluations = map(files.run, study.runs), [files.evaluation(name) for name in study.evaluations]
    page = files.report
    return [
        *(path for name in study.datasets for path in (files.dataset(name).problems, files.dataset(name).card)),
        *(files.model(name).folder / "config.json" for name in study.models),
        *(path for data in trained.values() for path in (data.problems, data.card)),
        *(files.neighbors(name).table for name in study.neighbors),
        *(run.model_card for run in runs),
        *(path for each in evaluations for path in (each.samples, each.samples_card)),
        *(each.grades for each in evaluations),
        *map(files.diagnostics, study.mixing_runs),
        *map(files.table, study.cells),
        *map(files.exploration, study.cells),
        *map(files.excerpts, study.cells),
        page.notebook("results"),
        *(page.page, page.figures / "a.svg", page.problems / "a.html", page.claims, page.compliance),
        *(page.table(name, kind) for name in study.cells for kind in ("html", "tex", "csv")),
    ]
