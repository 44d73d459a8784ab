"""The audit of the paper's own numbers in a terminal."""

import textwrap
from collections.abc import Sequence

from ngrpo.audit.paper_findings import Finding
from ngrpo.study.paper_values import PaperValues
from ngrpo.terminal import text_table

WIDTH = 112


def findings_text(statements: Sequence[Finding], paper: PaperValues) -> str:
    """Every statement with its calculation, its function and its rows."""
    parts = [f"The paper's own numbers ({paper.source.split(',')[0]}): what they can bear"]
    for number, finding in enumerate(statements, 1):
        parts += ["", f"{number}. {finding.title}", _wrapped(finding.says)]
        parts += [_wrapped(f"By: {finding.calculation}"), f"   Code: {finding.code}"]
        if finding.rows:
            parts += ["", textwrap.indent(text_table(finding.head, finding.rows), "   ")]
    return "\n".join(parts)


def _wrapped(text: str) -> str:
    return textwrap.fill(text, WIDTH, initial_indent="   ", subsequent_indent="   ", break_on_hyphens=False)
