"""What a notebook ends in: the study's answer in a sentence, and the claims that its tables and figures bear on."""

from collections.abc import Sequence
from typing import Literal

import pandas as pd
from great_tables import GT

from ngrpo.claims.verdicts import ClaimResult
from ngrpo.formatting import ABSENT, effect
from ngrpo.report.answer import answer, least_shown
from ngrpo.study.expand import Study
from ngrpo.study.predicates import Compared, Diagnosed, Predicate, System, read_claims, systems_of
from ngrpo.study.scale_note import scale_note

Notebook = Literal["results", "ablations", "diagnostics"]


def bears_on(test: Predicate, study: Study) -> Notebook:
    """The notebook that shows a claim's evidence: what `ngrpo diagnostics` counted, two ways to mix, or the rest."""
    if isinstance(test, Diagnosed):
        return "diagnostics"
    if isinstance(test, Compared) and all(_mixes(system, study) for system in systems_of(test)):
        return "ablations"
    return "results"


def _mixes(system: System, study: Study) -> bool:
    """Whether inputs are mixed where this system is trained or decoded."""
    if system.row:
        return False
    method = study.study.methods.get(system.method or "")
    mixers = [study.study.decodings[system.decoding].mixer, *([method.exploration] if method else [])]
    return any(mixer.mixes for mixer in mixers)


def conclusions(study: Study, claims: Sequence[ClaimResult], notebook: Notebook | None = None) -> GT | str:
    """The claims that a notebook's figures bear on (None: all of them), with effect, interval and verdict; in words
    where there are none. Above them stands what the page's first screen says.

    claims: every claim of the study (ngrpo.claims.verdicts.judge_claims).
    """
    tests = {name: claim.test for name, claim in read_claims(study.folder).items()} if study.folder else {}
    known = [claim for claim in claims if not claim.error]
    about = [claim for claim in known if notebook is None or bears_on(tests[claim.id], study) == notebook]
    sentence = answer(study, claims).sentence
    if not about:
        return f"{sentence} No claim that this scale shows is about what stands here."
    shown = pd.DataFrame([_row(claim) for claim in about])
    table = GT(shown, groupname_col="where").tab_header("What follows", sentence)
    note = scale_note(study.scale, study.size.verdicts)
    return table.tab_source_note(note) if note else table


def _row(claim: ClaimResult) -> dict[str, str]:
    row = {"where": claim.where, "claim": claim.says, "seen": ABSENT, "95 % interval": ABSENT}
    if claim.parts:
        part = least_shown(claim)
        unit = " points" if part.unit == "points" else ""
        row["seen"] = f"{part.what}: {effect(part.estimate, part.unit)}{unit}"
        row["95 % interval"] = f"{effect(part.low, part.unit)} to {effect(part.high, part.unit)}"
    return {**row, "verdict": claim.verdict or "no verdict", "why": claim.reason}
