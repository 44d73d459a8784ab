"""A table's file as a great_tables object, for notebooks: the same numbers as the page, from the same file."""

import pandas as pd
from great_tables import GT

from ngrpo.grades import GRADES, displayed
from ngrpo.report.figures import metric_title
from ngrpo.report.tables import INTERVAL_TITLES, value_text
from ngrpo.study.paper_values import AVERAGE
from ngrpo.study.scale_note import scale_note


def values_table(frame: pd.DataFrame, interval: str = "problems") -> GT:
    """Systems × headline metrics, values with one of the two intervals ("sampling" or "problems"), in percent.

    frame: a table's file, or some of its models and benchmarks. A cell that can't be used shows its status.
    """
    own = frame[frame["against"].isna() & frame["headline"]]
    shown = pd.DataFrame(
        {
            "group": own["model"] + ", " + own["benchmark"],
            "system": own["label"],
            "metric": [metric_title(row) for _, row in own.iterrows()],
            "text": [value_text(row, interval) for _, row in own.iterrows()],
        }
    )
    metrics = list(dict.fromkeys(shown["metric"]))
    wide = shown.pivot_table(index=["group", "system"], columns="metric", values="text", aggfunc="first", sort=False)
    table = GT(wide[metrics].reset_index(), rowname_col="system", groupname_col="group")
    table = table.tab_header("Values in percent", f"in brackets: 95 % intervals for {INTERVAL_TITLES[interval]}")
    warning = scale_note(frame["scale"].iloc[0], bool(frame["verdicts"].iloc[0]))
    return table.tab_source_note(warning) if warning else table


def counts_table(frame: pd.DataFrame) -> GT:
    """How many answers got each grade, a row a system, model and benchmark; averages left out."""
    own = frame[frame["against"].isna() & (frame["benchmark"] != AVERAGE)]
    rows = own.drop_duplicates(["model", "benchmark", "label"])
    shown = rows[["model", "benchmark", "label", "status", *GRADES]].rename(columns={g: displayed(g) for g in GRADES})
    return GT(shown).tab_header("Answers by grade").fmt_integer([displayed(g) for g in GRADES])
