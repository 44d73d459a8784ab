"""Where models and data sets come from: made (toy), a hub at a pinned revision, a package, or a user's folder."""

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from ngrpo.study.base import Config, PathText, Shown

Repo = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?$")]


class ToyModel(Config):
    """A tiny Qwen2 that the workflow pre-trains on generated arithmetic with worked solutions, some of them sloppy."""

    kind: Literal["toy"]
    hidden_size: int = Field(128, ge=1)
    """Width of the model, and of an embedding."""
    intermediate_size: int = Field(256, ge=1)
    """Width of the feed-forward layers."""
    layers: int = Field(2, ge=1)
    """Transformer layers."""
    heads: int = Field(4, ge=1)
    """Attention heads."""
    kv_heads: int = Field(2, ge=1)
    """Heads of keys and values."""
    steps: int = Field(1000, ge=1)
    """Optimizer steps of pre-training."""
    batch_size: int = Field(32, ge=1)
    """Problems an optimizer step."""
    learning_rate: float = Field(3e-3, gt=0)
    """Peak of pre-training's learning rate."""
    clean_share: float = Field(0.75, ge=0, le=1)
    """First share of the steps, whose traces are all correct."""
    forget: float = Field(0.75, ge=0, le=1)
    """After that: the probability that a trace forgets a carry that it needs: the weakness that training mends."""
    forget_borrows: float = Field(0.95, ge=0, le=1)
    """The same of a borrow. Near 1: problems that the model hardly ever solves, so that Pass@k grows with k."""
    seed: int = 1
    """Of the initial weights and of the problems' order."""


class HubModel(Config):
    """A model on the Hugging Face hub."""

    kind: Literal["hub"]
    repo: Repo
    """owner/name."""
    revision: str
    """Commit, 40 hexadecimal digits; a branch or tag only at scales without `verdicts`."""


class PackageModel(Config):
    """Weights that a Python package ships as GGUF (for real weights without a model hub)."""

    kind: Literal["package"]
    package: str
    """Name on the package index."""
    version: str
    """The package's version."""
    file: str
    """Name of the .gguf file inside the package."""


class FolderModel(Config):
    """A Hugging Face folder that is already there."""

    kind: Literal["folder"]
    path: PathText
    """The folder."""


ModelSource = Annotated[ToyModel | HubModel | PackageModel | FolderModel, Field(discriminator="kind")]


class GeneratedProblems(Config):
    """Problems that are made here; training and held-out problems are disjoint by a hash of the problem."""

    count: int = Field(ge=1)
    """How many distinct problems."""
    held_out: bool
    """Draw from the held-out eighth of all problems (validation, benchmarks) or from the rest (training)."""
    seed: int
    """Of the draw of problems."""
    validation: bool = False
    """Within the held-out part: the half for choosing checkpoints (true) or the half for benchmarks (false)."""


class ToyProblems(GeneratedProblems):
    """Generated sums and differences."""

    kind: Literal["toy"]
    terms: tuple[int, int] = (2, 3)
    """Fewest and most two-digit terms of a problem."""


class ArithmeticProblems(GeneratedProblems):
    """Generated sums and products of two numbers, such as "7 + 12", disjoint from the data set's `examples`, too."""

    kind: Literal["arithmetic"]
    operations: tuple[Literal["+", "*"], ...] = Field(("+", "*"), min_length=1)
    """What is asked for, each as often."""
    largest: int = Field(20, ge=2)
    """Numbers are 1 to this large in sums, and 2 to 12, or this large if that is less, in products."""


class HubDataset(Config):
    """A data set on the Hugging Face hub."""

    kind: Literal["hub"]
    repo: Repo
    """owner/name."""
    revision: str
    """Commit, 40 hexadecimal digits; a branch or tag only at scales without `verdicts`."""
    split: str
    """The hub's split, such as train or test."""
    subset: str | None = None
    """The hub's configuration name."""
    mirror: str | None = Field(None, exclude=True, pattern=r"^(https?|file)://.+\.(parquet|jsonl|json|csv)(\.gz)?$")
    """URL of an archive of the rows, one file (.parquet, .jsonl, .json or .csv), for when the hub doesn't give them.
    Changes no result: the rows must be the same."""
    sha256: str | None = Field(None, exclude=True, pattern="^[0-9a-f]{64}$")
    """Of the canonical rows, as a card names it; other rows are refused. None: those of the first fetch, which is
    recorded beside the data set. Changes no result."""


class FolderDataset(Config):
    """A .jsonl, .json or .parquet file in the folder that the user names (`data_folder`)."""

    kind: Literal["folder"]
    file: PathText
    """Its name in that folder."""


DatasetSource = Annotated[ToyProblems | ArithmeticProblems | HubDataset | FolderDataset, Field(discriminator="kind")]


class Fields(Config):
    """Names of the source's columns; names joined by dots lead into structs and lists: `reward_model.ground_truth`,
    `prompt.0.content`."""

    problem: str = "problem"
    """The question: text, or a list of messages with one user turn and nothing else, whose text is taken."""
    answer: str | None = "answer"
    """The reference: text or a number. None: the answer is the \\boxed{} of the solution, or the first of `choices`."""
    answer_after: str | None = Field(None, min_length=1)
    """What stands before the answer in its column, such as "####" in GSM8K; the last one counts, a row without it has
    no answer. None: the column is the answer."""
    solution: str | None = None
    """A worked solution; None: the column `solution`, where there is one that holds text."""
    choices: str | tuple[str, ...] | None = None
    """Options of a multiple-choice question: a column of lists, or one column an option (GPQA). The right one is named
    by `answer`: by its number (0 is the first), letter or text; without such a column it is the first. They are
    shuffled by a recorded permutation."""
    boxes: Literal["last"] | None = None
    """Which box of a solution with several different ones is the answer; None: such a row is refused."""
    id: str | None = None
    """Identifies a row; None: its number."""


class Dataset(Config):
    """Problems of one kind with their answers."""

    source: DatasetSource
    """Where it comes from."""
    kind: Literal["math", "choice", "number"] = "math"
    """math: \\boxed{} and Math-Verify; choice: "Answer: X"; number: the response's first line is a number and nothing
    else."""
    fields: Fields = Fields()
    """What the source calls its columns."""
    rows: int | None = Field(None, ge=1)
    """How many rows the source must have; None: not checked."""
    limit: int | None = Field(None, ge=1)
    """Train on, or ask, only the first so many problems (trials); all of them are kept out of training."""
    instruction: str
    """What is asked for after the problem; the math prompt joins them by a space, the choice prompt by a blank line,
    the number prompt by nothing."""
    examples: str | None = None
    """What stands before the problem, such as lines with solved ones (few-shot prompts); None: nothing."""
    title: Shown | None = None
    """How tables name it."""


class Model(Config):
    """A base model and how it is spoken to."""

    source: ModelSource
    """Where it comes from."""
    title: Shown | None = None
    """How tables name it."""
    template: Literal["chat", "plain"] = "chat"
    """chat: the tokenizer's chat template, one user turn; plain: the prompt as it is (base models, the toy)."""
    stop: str | None = None
    """A token that ends a response, too, beside the model's own, such as "\\n" for answers of a line; None: none."""
    dtype: Literal["float32", "bfloat16"] = "bfloat16"
    """Of rollout and training arithmetic; float32 on CPU."""
