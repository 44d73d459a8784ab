"""The report as one static page: what was proved on which card, driver and versions, by which command."""

from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

from ngrpo.doctor.gpu_report import NO_CARD, NOT_RUN, PASSED, counts, figure_text
from ngrpo.files import whole_file

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #1b1b1b }
table { border-collapse: collapse; width: 100%; margin: .5rem 0 1rem }
th, td { text-align: left; padding: .25rem .75rem .25rem 0; border-bottom: 1px solid #ddd; vertical-align: top }
th[scope=row] { font-weight: 400 }
td.number { font-variant-numeric: tabular-nums; white-space: nowrap }
code { font-size: .9em; overflow-wrap: anywhere }
pre { overflow-x: auto; background: #f5f5f5; padding: .75rem; font-size: .8rem }
.notice { border-left: .4rem solid #a33; padding: .5rem 1rem; background: #fdf3f3; font-weight: 600 }
.passed { color: #17632f } .failed, .timed-out { color: #9b1c1c } .not-run { color: #555 }
"""


def page(report: Mapping[str, Any]) -> str:
    """The page's HTML; every text in it is escaped."""
    node, kit, card = report["node"], report["kit"], report["node"]["card"]
    title = f"GPU report: {card['name']}" if card else "Kit for GPU nodes: no card"
    facts = [
        ("card", f"{node['cards']} × {card['name']}, {card['memory_mib'] / 1024:.0f} GiB" if card else "none"),
        ("driver, CUDA", f"{card['driver']}, CUDA {card['cuda']}" if card else "–"),
        ("Python, torch", f"{node['python']}, {node['torch']}"),
        ("packages", ", ".join(f"{name} {version}" for name, version in node["packages"].items())),
        ("kit", f"of {kit['made']}, commit {kit.get('commit') or 'unknown'}, manifest {kit['digest']}"),
        ("command", report["command"]),
        ("begun", report["began"]),
        ("steps", counts(report)),
    ]  # fmt: skip
    rows = "".join(f'<tr><th scope="row">{escape(k)}</th><td>{escape(str(v))}</td></tr>' for k, v in facts)
    notice = "" if card else f'<p class="notice">{escape(NO_CARD)}</p>'
    steps = "".join(_step(step) for step in report["steps"])
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{_STYLE}</style></head>'
        f"<body><main><h1>{escape(title)}</h1>{notice}<table>{rows}</table>{steps}</main></body></html>\n"
    )


def _step(step: Mapping[str, Any]) -> str:
    state = step["state"]
    ran = "" if state == NOT_RUN else f", on the {step['on']}, {step['seconds']:.0f} s"
    head = f"<h2>{escape(step['title'])}</h2>"
    head += f'<p><strong class="{state.replace(" ", "-")}">{escape(state)}</strong>{escape(ran)}'
    head += f": {escape(step['reason'])}</p>" if step["reason"] else "</p>"
    if state == NOT_RUN:
        return head
    figures = "".join(
        f'<tr><th scope="row">{escape(f["what"])}</th><td class="number">{escape(figure_text(f))}</td>'
        f"<td>{escape(f['wanted'])}</td><td>{_MARKS[f['met']]}</td></tr>"
        for f in step["figures"]
    )
    columns = "".join(f'<th scope="col">{name}</th>' for name in ("what", "found", "wanted", "so it is"))
    table = f"<table><thead><tr>{columns}</tr></thead><tbody>{figures}</tbody></table>" if figures else ""
    said = f"<details><summary>the end of its output</summary><pre>{escape(step['said'])}</pre></details>"
    return f"{head}{table}<p><code>{escape(step['command'])}</code></p>{said if state != PASSED else ''}"


_MARKS = {True: "yes", False: '<span class="failed">no</span>', None: ""}


def write_page(path: Path, report: Mapping[str, Any]) -> None:
    """Write it, whole or not at all."""
    with whole_file(path) as part:
        part.write_text(page(report), encoding="utf-8")
