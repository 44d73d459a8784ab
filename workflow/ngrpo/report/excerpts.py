"""Some of a table's responses, kept for the page's problems: a right and a wrong one of some problems, cut to size.

Samples take gigabytes at paper scale; what a page shows of them is chosen once, when a table is computed: of PROBLEMS
problems at equal distances the first right and the first wrong response, of each its first and last characters.
`ngrpo show` has the rest. A crate holds none: some benchmarks ask that their problems not be published.
"""

from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from ngrpo.audit.status import read_grades
from ngrpo.files import whole_file
from ngrpo.foreign import read_parquet
from ngrpo.report.exploration import spread
from ngrpo.study.expand import Study
from ngrpo.study.layout import Results

PROBLEMS = 20
FIRST, LAST = 700, 1300
"""Characters of a longer text that are kept."""
SCHEMA = pa.schema(
    [
        ("evaluation", pa.string()),
        ("problem_id", pa.string()),
        ("problem", pa.string()),  # its text
        ("sample", pa.int32()),
        ("text", pa.string()),
        ("tokens", pa.int32()),
        ("mixed", pa.int32()),  # of these, how many fed a mixture
    ]
)
_SAMPLES = pa.schema(
    [("problem_id", pa.string()), ("sample", pa.int32()), ("text", pa.string()), ("tokens", pa.int32()),
     ("mixed", pa.int32()), ("spec", pa.string())]
)  # fmt: skip
_PROBLEMS = pa.schema([("id", pa.string()), ("problem", pa.string())])


def write_excerpts(table: str, study: Study, results: Results, out: Path) -> None:
    """Choose some responses of one table's evaluations and write them to `out` (SCHEMA)."""
    evaluations = dict.fromkeys(cell.evaluation for cell in study.cells[table])
    parts = [part for name in evaluations if len(part := _excerpts(study, results, name))]
    frame = pd.concat(parts) if parts else pd.DataFrame(columns=SCHEMA.names)
    with whole_file(out) as part:
        pq.write_table(pa.Table.from_pandas(frame, SCHEMA, preserve_index=False), part)


def read_excerpts(path: Path) -> pd.DataFrame:
    """What `write_excerpts` wrote. Raises UserError where it isn't that."""
    make = "delete it and make it again: `ngrpo analyze`"
    frame: pd.DataFrame = read_parquet(path, SCHEMA, exact=True, make=make).to_pandas()
    return frame


def shortened(text: str) -> str:
    """A text's first and last characters, where it is longer than both."""
    left_out = len(text) - FIRST - LAST
    return text if left_out <= 0 else f"{text[:FIRST]}\n[… {left_out:,} characters …]\n{text[-LAST:]}"


def _excerpts(study: Study, results: Results, evaluation: str) -> pd.DataFrame:
    """Of one evaluation; nothing where its grades or samples are missing or another spec's."""
    grades, files = read_grades(study, results, evaluation).frame, results.evaluation(evaluation)
    if grades is None or not files.samples.exists():
        return pd.DataFrame()
    samples = read_parquet(files.samples, _SAMPLES, exact=True).to_pandas()
    if set(samples["spec"]) != {study.evaluations[evaluation].digest}:
        return pd.DataFrame()
    both = samples.merge(grades[["problem_id", "sample", "grade"]], on=["problem_id", "sample"])
    both = both[both["problem_id"].isin(spread(both["problem_id"], PROBLEMS))].assign(right=both["grade"] == "correct")
    chosen = both.sort_values("sample").drop_duplicates(["problem_id", "right"]).sort_values(["problem_id", "sample"])
    texts = {}
    asked = results.dataset(study.evaluations[evaluation].benchmark.id).problems
    if asked.exists():
        known = read_parquet(asked, _PROBLEMS, exact=True).to_pandas()
        texts = dict(zip(known["id"].astype(str), known["problem"], strict=True))
    problems = [shortened(str(texts.get(str(problem), ""))) for problem in chosen["problem_id"]]
    chosen = chosen.assign(evaluation=evaluation, problem=problems, text=[shortened(t) for t in chosen["text"]])
    return chosen[list(SCHEMA.names)]
