"""Where everything of a study lies: the only module that knows a result's path.

Beside what a job makes lies the spec that it was made for (`….spec.json`, `runs/{run}/spec.json`), written by that job.

`Results(root).run(id).metrics`, `.evaluation(id).grades`, … are paths below results/{scale}. Ids may be Snakemake
wildcards (`Results(root).run("{run}")`), so that rules and code name the same files. Nothing here looks at the disk.

```
specs/{digest}.json                                             a spec as jobs read it: never changed once it is there
studies/{digest}/                                               settings and configuration of a start of Snakemake
data/{dataset}.parquet  .card.json  .spec.json  .fetched.json   problems, how they were made, what they are
data/{dataset}.{model}.parquet  .card.json  .spec.json          training problems left for a model's tokenizer
models/{model}/  .spec.json                                     a Hugging Face folder
policies/{policy}/  .spec.json                                  the same of a policy that was trained elsewhere
contents.json                                                   what the user's files were that tables name, as SHA-256
neighbors/{table}.safetensors  .spec.json                       a neighbor table
runs/{run}/spec.json  metrics.jsonl  verl.json  hardware.json  train.log  checkpoints/  model/
evaluations/{policy}/{decoding}/{benchmark}.samples.parquet  .samples.card.json  .samples.time.json  .grades.parquet
evaluations/batches.json                                        which evaluations are one sampling job
diagnostics/{run}.json                                          what mixing feeds on a run's base model
analysis/{table}.parquet                                        metrics with intervals
exploration/{table}.parquet                                     how diverse a table's systems answer
excerpts/{table}.parquet                                        some responses, for the report's problems
report/index.html  live.html  claims.json  compliance.csv  figures/  tables/  {notebook}.ipynb
imported/{name}/curves.csv  card.json                           other people's training curves (`ngrpo import`)
looks.json                                                      verdicts that were given so far
decisions/{claim}.{seeds}.json                                  a claim's, where seeds are added until it is decided
logs/{stage}/{name}.log
```
"""

from dataclasses import dataclass
from pathlib import Path

MODEL_CARD = "ngrpo.json"  # in every model folder: whose spec it was made for


@dataclass(frozen=True)
class DatasetFiles:
    """A data set, or the training problems that are left of it for one model."""

    folder: Path
    name: str

    @property
    def spec(self) -> Path:
        """What it was made for."""
        return self.folder / f"{self.name}.spec.json"

    @property
    def problems(self) -> Path:
        """One row a problem."""
        return self.folder / f"{self.name}.parquet"

    @property
    def card(self) -> Path:
        """Where it came from; rows in, rows out, why each left."""
        return self.folder / f"{self.name}.card.json"

    @property
    def fetched(self) -> Path:
        """Which rows the hub gave first; no rule's declared output."""
        return self.folder / f"{self.name}.fetched.json"


@dataclass(frozen=True)
class ModelFiles:
    """A base model."""

    folder: Path
    """The Hugging Face folder."""

    @property
    def spec(self) -> Path:
        """What it was made for; beside the folder."""
        return self.folder.with_name(f"{self.folder.name}.spec.json")

    @property
    def card(self) -> Path:
        """Whose spec the folder was made for."""
        return self.folder / MODEL_CARD


@dataclass(frozen=True)
class NeighborTableFiles:
    """A neighbor table."""

    folder: Path
    name: str

    @property
    def spec(self) -> Path:
        """What it was made for."""
        return self.folder / f"{self.name}.spec.json"

    @property
    def table(self) -> Path:
        """The table, as safetensors."""
        return self.folder / f"{self.name}.safetensors"


@dataclass(frozen=True)
class RunFiles:
    """A training run. Its checkpoints and logs are no rule's declared output: a failed job keeps them."""

    folder: Path

    @property
    def spec(self) -> Path:
        """What it is trained for."""
        return self.folder / "spec.json"

    @property
    def metrics(self) -> Path:
        """One JSON object a step (see `ngrpo.study.run_log`)."""
        return self.folder / "metrics.jsonl"

    @property
    def verl_settings(self) -> Path:
        """verl's resolved settings, as its trainer held them when training started."""
        return self.folder / "verl.json"

    @property
    def hardware(self) -> Path:
        """What each of its jobs ran on."""
        return self.folder / "hardware.json"

    @property
    def train_log(self) -> Path:
        """What its workers printed."""
        return self.folder / "train.log"

    @property
    def tensorboard(self) -> Path:
        """Its curves for TensorBoard, where `tracking` asks for it."""
        return self.folder / "tensorboard"

    @property
    def checkpoints(self) -> Path:
        """Whole checkpoints, and the best policy so far."""
        return self.folder / "checkpoints"

    @property
    def lease(self) -> Path:
        """Who trains here."""
        return self.folder / "lease.json"

    @property
    def failure(self) -> Path:
        """Why it can't go on: which quantity was no finite number at which step, and of which spec."""
        return self.folder / "failure.json"

    @property
    def stop(self) -> Path:
        """Asks the trainer to finish its step, save it, and end."""
        return self.folder / "stop"

    @property
    def model(self) -> Path:
        """The best checkpoint's policy as a Hugging Face folder; written last."""
        return self.folder / "model"

    @property
    def model_card(self) -> Path:
        """Whose spec the policy was trained for, its step and validation score."""
        return self.model / MODEL_CARD


@dataclass(frozen=True)
class EvaluationFiles:
    """An evaluation; id: policy/decoding/benchmark."""

    folder: Path
    benchmark: str

    def _file(self, ending: str) -> Path:
        return self.folder / f"{self.benchmark}.{ending}"

    @property
    def spec(self) -> Path:
        """What its samples were drawn for."""
        return self._file("spec.json")

    @property
    def samples(self) -> Path:
        """One row a sample."""
        return self._file("samples.parquet")

    @property
    def samples_card(self) -> Path:
        """Whose spec the samples were drawn for; their counts."""
        return self._file("samples.card.json")

    @property
    def samples_time(self) -> Path:
        """What drawing them took, and on what."""
        return self._file("samples.time.json")

    @property
    def grades(self) -> Path:
        """One row a sample: its answer and grade."""
        return self._file("grades.parquet")


@dataclass(frozen=True)
class ImportedFiles:
    """Training curves of somebody else's run."""

    folder: Path

    @property
    def curves(self) -> Path:
        """A column a curve, a line a step."""
        return self.folder / "curves.csv"

    @property
    def card(self) -> Path:
        """Where they came from."""
        return self.folder / "card.json"


@dataclass(frozen=True)
class ReportFiles:
    """The report page and what lies beside it."""

    folder: Path

    @property
    def page(self) -> Path:
        """The page."""
        return self.folder / "index.html"

    @property
    def live(self) -> Path:
        """Every run as it is now; written while one is trained."""
        return self.folder / "live.html"

    @property
    def figures(self) -> Path:
        """Each figure of the page as SVG."""
        return self.folder / "figures"

    @property
    def problems(self) -> Path:
        """A page for each evaluation and each diagnosed base model: what a number was computed from."""
        return self.folder / "problems"

    @property
    def claims(self) -> Path:
        """Every claim with its evidence and verdict."""
        return self.folder / "claims.json"

    @property
    def compliance(self) -> Path:
        """Every required value of every run beside what the run wrote down."""
        return self.folder / "compliance.csv"

    def table(self, name: str, kind: str) -> Path:
        """A table beside the paper's values; kind: html, tex or csv."""
        return self.folder / "tables" / f"{name}.{kind}"

    def notebook(self, name: str) -> Path:
        """A notebook, executed on this study."""
        return self.folder / f"{name}.ipynb"


@dataclass(frozen=True)
class Results:
    """The results of one study at one scale."""

    root: Path
    """results/{scale}."""

    @classmethod
    def of(cls, results: "Path | Results") -> "Results":
        """These results, given as such or as their folder."""
        return results if isinstance(results, Results) else cls(Path(results))

    def spec(self, digest: str) -> Path:
        """The spec of this digest, for the jobs that take it."""
        return self.root / "specs" / f"{digest}.json"

    def snapshot(self, digest: str) -> Path:
        """Settings and configuration as a start of Snakemake had them (see `ngrpo.study.snapshot`)."""
        return self.root / "studies" / digest

    @property
    def data(self) -> Path:
        """The folder of all data sets."""
        return self.root / "data"

    def dataset(self, name: str) -> DatasetFiles:
        """A data set."""
        return DatasetFiles(self.data, name)

    def training_data(self, dataset: str, model: str) -> DatasetFiles:
        """A data set's training problems for a model."""
        return DatasetFiles(self.data, f"{dataset}.{model}")

    def model(self, name: str) -> ModelFiles:
        """A base model."""
        return ModelFiles(self.root / "models" / name)

    def policy(self, name: str) -> ModelFiles:
        """A policy that was trained elsewhere."""
        return ModelFiles(self.root / "policies" / name)

    @property
    def contents(self) -> Path:
        """What the user's folders and files were that tables name, as SHA-256 (see `ngrpo.study.contents`)."""
        return self.root / "contents.json"

    def neighbors(self, name: str) -> NeighborTableFiles:
        """A neighbor table."""
        return NeighborTableFiles(self.root / "neighbors", name)

    def run(self, name: str) -> RunFiles:
        """A training run."""
        return RunFiles(self.root / "runs" / name)

    def imported(self, name: str) -> ImportedFiles:
        """Curves that were imported."""
        return ImportedFiles(self.root / "imported" / name)

    def evaluation(self, name: str) -> EvaluationFiles:
        """An evaluation, by policy/decoding/benchmark."""
        system, _, benchmark = name.rpartition("/")
        return EvaluationFiles(self.root / "evaluations" / system, benchmark)

    @property
    def batches(self) -> Path:
        """Which evaluations are one sampling job (see `ngrpo.study.batches`)."""
        return self.root / "evaluations" / "batches.json"

    def diagnostics(self, run: str) -> Path:
        """What mixing feeds on a run's base model."""
        return self.root / "diagnostics" / f"{run}.json"

    def table(self, name: str) -> Path:
        """A table's metrics with intervals, one row a number."""
        return self.root / "analysis" / f"{name}.parquet"

    def exploration(self, name: str) -> Path:
        """How diverse a table's systems answer, one row a number."""
        return self.root / "exploration" / f"{name}.parquet"

    def excerpts(self, name: str) -> Path:
        """Some responses of a table's systems, for the report's problems."""
        return self.root / "excerpts" / f"{name}.parquet"

    @property
    def report(self) -> ReportFiles:
        """The report."""
        return ReportFiles(self.root / "report")

    @property
    def looks(self) -> Path:
        """Every verdict that a report gave, so that the next knows how often was looked; no rule's output."""
        return self.root / "looks.json"

    @property
    def looks_lock(self) -> Path:
        """Locked while a report's verdicts are given and recorded; empty."""
        return self.root / ".looks.lock"

    def decision(self, claim: str, seeds: str) -> Path:
        """What was known of a claim that is being decided after a look at so many training seeds."""
        return self.root / "decisions" / f"{claim}.{seeds}.json"

    @property
    def crate(self) -> Path:
        """The study as an RO-Crate."""
        return self.root / "crate.zip"

    def log(self, stage: str, name: str = "") -> Path:
        """A job's log."""
        return self.root / "logs" / (f"{stage}/{name}.log" if name else f"{stage}.log")

    def relative(self, path: Path) -> str:
        """A path as the report names it: below the results."""
        return path.relative_to(self.root).as_posix()
