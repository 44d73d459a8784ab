"""What the paper reports, typed: config/paper_values.yaml. Percent in the file, shares when asked for."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from ngrpo.errors import UserError, nearest_name
from ngrpo.study.base import Config, Id
from ngrpo.study.reading import read_yaml

FILE = "paper_values.yaml"
AVERAGE = "Avg"
ROUNDING = 0.0101
"""Percentage points by which a printed average may miss that of printed values."""

Percent = Annotated[float, Field(ge=0, le=100)]
Metric = Literal["mean", "pass@16", "pass@32"]


class PaperTable(Config):
    """One printed table."""

    title: str
    values: dict[Id, dict[str, dict[Id | Literal["Avg"], dict[Metric, Percent]]]]
    """Model, row label, benchmark, metric: percent as printed."""

    @model_validator(mode="after")
    def _averages_agree(self) -> "PaperTable":
        for model, rows in self.values.items():
            for label, row in rows.items():
                for metric, printed in row.get(AVERAGE, {}).items():
                    parts = [v[metric] for b, v in row.items() if b != AVERAGE and metric in v]
                    if parts and abs(sum(parts) / len(parts) - printed) > ROUNDING:
                        raise ValueError(f"{model}, {label}: {metric} of {AVERAGE} isn't the mean of the benchmarks'")
        return self


class Hyperparameters(Config):
    """Table 6."""

    k: int
    temperature: float
    batch_prompts: int
    gradient_accumulation: int
    max_prompt_tokens: int
    max_response_tokens: int
    learning_rate: float
    kl_coefficient: float
    group: int
    epochs: int


class Mixing(Config):
    """§4.1: N-GRPO's own settings that Table 6 doesn't print."""

    rho: float
    metric: str


class PaperEvaluation(Config):
    """§4.1: how policies are measured, and by what the checkpoint is chosen."""

    samples: int
    temperature: float
    top_p: float
    max_new_tokens: int
    validation: Id


class Paired(Config):
    """Table 9: problems by who solves them."""

    both: Percent
    standard_only: Percent
    mixing_only: Percent
    neither: Percent


class Throughput(Config):
    """Table 14: tokens a second, and the slowdown in percent."""

    standard: float = Field(gt=0)
    mixing: float = Field(gt=0)
    slowdown: Percent


class Cosine(Config):
    """Appendix E: cosine of a mixture and its anchor's embedding."""

    mean: float
    least: float
    below_0_95: Percent = Field(alias="below_0.95")


class PaperValues(Config):
    """All that the paper reports and this study can be compared with."""

    source: str
    tables: dict[Id, PaperTable]
    averages: dict[Id, Id] = Field(default_factory=dict)
    """Tables that print only the averages of another table."""
    hyperparameters: Hyperparameters
    mixing: Mixing | None = None
    evaluation: PaperEvaluation
    sizes: dict[Id, int]
    """Problems of each benchmark (Table 7)."""
    paired: Paired
    throughput: dict[Id, Throughput]
    cosine: Cosine

    @model_validator(mode="after")
    def _averaged_tables_exist(self) -> "PaperValues":
        for name, of in self.averages.items():
            if of not in self.tables:
                near = nearest_name(of, self.tables)
                raise ValueError(f"averages.{name}: there is no table '{of}'{f'; {near}?' if near else ''}")
        return self

    def value(self, table: str, model: str, label: str, benchmark: str, metric: str) -> tuple[float, str] | None:
        """The printed share of a row and the id of the table that prints it, or None where no table does.

        A row that the table itself doesn't print is looked for in the others: it is the same system. benchmark: an id
        or "Avg". metric: "mean", "pass@16", "pass@32".
        """
        first = self.averages.get(table, table)
        for name in sorted(self.tables, key=lambda t: t != first):
            shares = self.tables[name].values.get(model, {}).get(label, {}).get(benchmark, {})
            percent = next((value for key, value in shares.items() if key == metric), None)
            if percent is not None:
                return percent / 100, name
        return None

    @property
    def models(self) -> set[str]:
        """Every model of any table."""
        return {model for table in self.tables.values() for model in table.values}

    @property
    def benchmarks(self) -> set[str]:
        """Every benchmark that the paper names."""
        return set(self.sizes)


def read_paper_values(config: Path) -> PaperValues | None:
    """The paper's values of a configuration folder, or None where it has none. Raises UserError for a broken file."""
    path = config / FILE
    return read_yaml(PaperValues, path) if path.exists() else None


def metric_id(metric: str) -> str:
    """The paper's name of a metric of ours: "Mean@32" is "mean", "Pass@16" is "pass@16"."""
    if metric.startswith("Mean@"):
        return "mean"
    if metric.startswith("Pass@"):
        return metric.lower()
    raise UserError(f"there is no metric '{metric}'", where=FILE, do="Mean@n or Pass@k")
