"""Tables as CSV that no spreadsheet computes."""

from typing import Any

import pandas as pd

from ngrpo.terminal import printable

FORMULA = ("=", "+", "-", "@")
"""What spreadsheets take for the beginning of a formula."""


def csv_text(frame: pd.DataFrame) -> str:
    """A table as CSV, a row a line. A text that a spreadsheet would compute (=1+1, @SUM(A1)) begins with an apostrophe
    instead; control characters are escapes."""

    def inert(value: Any) -> Any:
        if not isinstance(value, str):
            return value
        text = printable(value)
        return f"'{text}" if text.startswith(FORMULA) and not _is_number(text) else text

    words = {name: frame[name].map(inert) for name in frame if not pd.api.types.is_numeric_dtype(frame[name])}
    return frame.assign(**words).to_csv(index=False)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
