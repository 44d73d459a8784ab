"""The page's panels beside its tables: problem by problem, training curves, what mixing feeds."""

from collections.abc import Iterator, Sequence
from typing import Any

import pandas as pd

from ngrpo.audit.status import RunState
from ngrpo.claims.evidence import Reader
from ngrpo.claims.quantities import flips_of
from ngrpo.formatting import percent, short
from ngrpo.report import figures
from ngrpo.report.curves import CURVES
from ngrpo.report.diagnostics import Totals, examples, read_diagnostics, totals
from ngrpo.report.drawing import Style, imported_styles, styles
from ngrpo.report.figures_ablation import better_and_worse, by_problem
from ngrpo.report.figures_diagnostics import cosines_to_anchor, inputs_on_two_axes, nearest_after_noise
from ngrpo.report.gallery import Gallery
from ngrpo.report.imports import Imported
from ngrpo.report.names import marked, place_title, slug
from ngrpo.study.expand import Study
from ngrpo.study.layout import Results
from ngrpo.study.titles import title_of

FIGURE_1 = (
    "The paper’s Figure 1: tokens, Gaussian noise around each, and the vocabulary’s token that is then nearest, by"
    " cosine in the whole space. Solid: from a token to a noisy vector. Dotted: on to the nearest token, red where it"
    " is another one."
)
INPUTS = (
    "The same tokens, what mixing fed there, and all draws of noise. Two axes hide most of the noise, which points in"
    " all directions."
)
COSINES = "Whole vectors: how close to their anchor’s embedding mixtures and Gaussian noise lie."


def problem_panels(study: Study, reader: Reader, gallery: Gallery) -> Iterator[dict[str, Any]]:
    """For each model and benchmark the first two trained systems, problem by problem: {where, svg, evaluations}."""
    for (model, benchmark), systems in trained_systems(study).items():
        pair = list(systems.items())[:2]
        read = [reader.grades(evaluation).frame for evaluation, _ in pair]
        frames = [frame for frame in read if frame is not None]
        if len(frames) < 2:
            continue
        first, second = (label for _, label in pair)
        if figure := by_problem(frames[0], frames[1], (first, second)):
            where = place_title(study, model, benchmark)
            more, less, all_of_them = better_and_worse(frames[0], frames[1])
            description = (
                f"{second} solves {more} of {all_of_them} problems more often than {first}, {less} less often."
            )
            svg = gallery.draw(figure, slug("problems", model, benchmark), f"Problem by problem: {where}", description)
            yield {"where": where, "svg": svg, "evaluations": [evaluation for evaluation, _ in pair]}


def trained_systems(study: Study) -> dict[tuple[str, str], dict[str, str]]:
    """(model, benchmark) → evaluation → label, of trained policies under standard decoding, in the tables' order."""
    systems: dict[tuple[str, str], dict[str, str]] = {}
    for cell in (cell for cells in study.cells.values() for cell in cells):
        spec = study.evaluations[cell.evaluation]
        if spec.policy.type == "run" and spec.decoding_id == "standard":
            systems.setdefault((cell.model, cell.benchmark), {}).setdefault(cell.evaluation, cell.label)
    return systems


def diagnostics_panels(study: Study, results: Results, gallery: Gallery) -> Iterator[dict[str, Any]]:
    """What mixing feeds on each base model: totals, the paper's Figure 1, cosines and one response in words."""
    for one in read_diagnostics(study, results):
        shown = {"run": one.run, "file": one.file, "data": one.data, "note": one.note}
        if not one.data:
            yield shown
            continue
        model = study.runs[one.run].model.id
        title, name = title_of(study, "model", model), slug("diagnostics", model)
        sums = totals(one.data)
        inputs, cosines = inputs_on_two_axes(one.data), cosines_to_anchor(one.data)
        words = f"Mixtures: mean cosine {short(sums.mean, 4)}, least {short(sums.least, 4)}."
        panels = [
            {"svg": gallery.draw(inputs, name, f"What is fed: {title}", words), "about": INPUTS},
            {"svg": gallery.draw(cosines, f"{name}-cosines", f"Cosine to the anchor: {title}", words),
             "about": COSINES},
        ]  # fmt: skip
        if nearest := nearest_after_noise(one.data):
            drawn = gallery.draw(
                nearest, f"{name}-nearest", f"Nearest token after noise: {title}", _flips_in_words(sums)
            )
            panels.insert(0, {"svg": drawn, "about": FIGURE_1})
        flips = {kind: flips_of(one.run, kind) for kind in sums.flips}
        yield shown | {
            "title": title,
            "totals": sums,
            "quantities": flips,
            "panels": panels,
            "example": "".join(examples(one.data, 1)),
        }


def _flips_in_words(sums: Totals) -> str:
    kinds = {"noise": "noise", "mixture": "mixing"}
    shares = [f"{percent(share.value)} % under {kinds[kind]}" for kind, share in sums.flips.items()]
    return f"Vectors that lie nearest to another token: {', '.join(shares) or 'not measured'}."


# --- training ---


def training_panels(
    study: Study, runs: list[RunState], imports: Sequence[Imported], gallery: Gallery
) -> Iterator[dict[str, Any]]:
    """For each model its training curves, of the first seed, and those that were imported; a system keeps the color
    that it has in the tables, and where an earlier one has the same it is named as left out."""
    runs = [run for run in runs if run.spec.seed == study.study.seed]
    labels = list(dict.fromkeys(c.label for cells in study.cells.values() for c in cells))
    looks = styles(labels)
    for model in dict.fromkeys([*(r.spec.model.id for r in runs), *(each.model for each in imports)]):
        logged = {run_label(study, r): r for r in runs if r.spec.model.id == model and len(r.log)}
        own = _of_different_looks(logged, looks)
        theirs = [each for each in imports if each.model == model]
        looks |= imported_styles([each.label for each in theirs])
        logs = {label: r.log for label, r in own.items()} | {each.label: each.log for each in theirs}
        chosen = {label: r.chosen_step for label, r in own.items() if r.chosen_step}
        panels = []
        for curve in CURVES:
            limits = [r.parity.limit for r in own.values() if r.parity.column == curve.column]
            figure = figures.training_curve(curve, logs, looks=looks, limits=limits, chosen=chosen)
            if figure:
                last = [f"{label} ends at {short(_last(log, curve.column))}" for label, log in logs.items()]
                title = f"{curve.what}: {title_of(study, 'model', model)}"
                svg = gallery.draw(figure, slug("training", model, curve.column), title, f"{'; '.join(last)}.")
                panels.append({"about": curve.about, "svg": svg})
        if panels:
            keys = [(marked(label, own[label].learned_nothing), looks[label]) for label in own]
            keys += [(each.label, looks[each.label]) for each in theirs]
            shown = {"model": title_of(study, "model", model), "panels": panels, "keys": keys, "imports": theirs}
            yield shown | {"runs": [r.id for r in own.values()], "left_out": [x for x in logged if x not in own]}


def _of_different_looks(logged: dict[str, RunState], looks: dict[str, Style]) -> dict[str, RunState]:
    """The runs, without those that would look like one before them."""
    own: dict[Style, str] = {}
    for label in sorted(logged, key=list(looks).index):
        own.setdefault(looks[label], label)
    return {label: logged[label] for label in own.values()}


def run_label(study: Study, run: RunState) -> str:
    """The label under which tables show this run's policy, so that a system has one color in all figures."""
    for cells in study.cells.values():
        for cell in cells:
            policy = study.evaluations[cell.evaluation].policy
            if policy.type == "run" and policy.id == run.id:
                return cell.label
    return run.id


def _last(log: pd.DataFrame, column: str) -> float | None:
    values = log[column].dropna() if column in log else pd.Series(dtype=float)
    return float(values.iloc[-1]) if len(values) else None
