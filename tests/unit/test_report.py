"""The report page is whole and self-contained, and says in its place what is missing. The notebook runs alone."""

import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import pandas as pd
import pytest
from synthetic_study import ROOT, make_study
from unwritten import page_html

from ngrpo.formatting import points, signed
from ngrpo.report.curves import CURVES
from ngrpo.report.exploration import MEASURES, SHARES, read_exploration
from ngrpo.report.page import gather, page, report
from ngrpo.report.tables import analyze
from ngrpo.study.layout import Results

VOID = {"meta", "link", "br", "hr", "img", "input", "path", "line", "use", "rect", "circle"}
PAPER = "https://arxiv.org/abs/2606.10768"


class Page(HTMLParser):
    """A page's elements; raises AssertionError where tags don't nest."""

    def __init__(self, text: str):
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict]] = []
        self.text: list[str] = []
        self.feed(text)
        assert self.open == [], self.open

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        if tag in VOID:
            return
        assert self.open[-1:] == [tag], (tag, self.open[-4:], self.getpos())
        self.open.pop()

    def handle_data(self, data):
        if not {"style", "script"} & set(self.open):
            self.text.append(data)

    def words(self) -> str:
        """All visible text, white space folded."""
        return " ".join(" ".join(self.text).split())

    def all(self, *tags: str) -> list[dict]:
        """The attributes of all elements of these tags."""
        return [attrs for tag, attrs in self.elements if tag in tags]


def written(study, results: Results) -> Page:
    report(study, results, results.report.page)
    return Page(results.report.page.read_text(encoding="utf-8"))


def shown(study, results: Results) -> Page:
    """The page's words, for tests that damage a study: without its figures, nothing is written."""
    return Page(page_html(study, results))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory):
    """A finished toy study, its results and its page; tests only read them."""
    folder = tmp_path_factory.mktemp("finished")
    study, results = make_study(folder, problems=16), Results(folder / "toy")
    analyze("main", study, results, results.table("main"), results.exploration("main"))
    return study, results, written(study, results)


@pytest.fixture
def toy(tmp_path: Path):
    """A finished toy study to damage."""
    study, results = make_study(tmp_path, problems=8), Results(tmp_path / "toy")
    analyze("main", study, results, results.table("main"))
    return study, results


def test_the_page_needs_nothing_from_outside(finished) -> None:
    _, results, page = finished
    text = results.report.page.read_text()
    assert not page.all("script", "iframe", "object", "embed")
    for attrs in page.all("link", "img", "image", "use", "source"):
        for name in ("href", "src", "xlink:href"):
            assert attrs.get(name, "#").startswith(("#", "data:")), attrs
    assert "@import" not in text
    assert all(target.startswith("#") for target in re.findall(r"url\(([^)]*)\)", text))
    addresses = set(re.findall(r"https?://[^\s\"'<)]+", text))
    assert addresses == {PAPER, "http://www.w3.org/1999/xlink"}


def test_the_parser_of_these_tests_refuses_tags_that_dont_nest() -> None:
    with pytest.raises(AssertionError):
        Page("<p><b>x</p></b>")


def test_ids_are_unique_and_every_anchor_and_file_link_resolves(finished) -> None:
    _, results, page = finished
    ids = [attrs["id"] for _, attrs in page.elements if "id" in attrs]
    assert len(ids) == len(set(ids))
    for name in ("aria-labelledby", "xlink:href", "clip-path"):
        for _, attrs in page.elements:
            named = re.findall(r"#([\w@.-]+)", attrs.get(name, "")) if name != "aria-labelledby" else None
            assert set(named if named is not None else attrs.get(name, "").split()) <= set(ids)
    links = [attrs["href"] for attrs in page.all("a")]
    assert len(links) > 30
    for link in links:
        if link.startswith("#"):
            assert link[1:] in ids
        elif link != PAPER:
            assert (results.report.folder / link).exists(), link


def test_headings_are_in_order_and_figures_are_described(finished) -> None:
    page = finished[2]
    levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch(r"h[1-6]", tag)]
    assert levels[0] == 1
    assert 1 not in levels[1:]
    assert all(b <= a + 1 for a, b in pairwise(levels))
    assert page.all("html")[0]["lang"] == "en"
    drawings = [a for a in page.all("svg") if "aria-labelledby" in a]
    assert len(drawings) == 3 + 2 + 1 + len(CURVES) + 3  # forests, Pass@k, problems, training, diagnostics
    assert len(page.all("desc")) == len(drawings)
    assert all("aria-hidden" in a or a.get("role") == "img" for a in page.all("svg"))
    assert all(attrs.get("scope") for attrs in page.all("th"))


def test_it_shows_both_estimators_both_intervals_and_all_counts(finished) -> None:
    study, results, page = finished
    words = page.words()
    for word in ("unbiased", "bootstrap", "samples", "problems", "truncated", "grader error", "no answer"):
        assert word in words
    table = pd.read_parquet(results.table("main"))
    own = table[table["against"].isna() & table["headline"]]
    for _, row in own.iterrows():
        for interval in ("sampling", "problems"):
            low, high = row[f"{interval}_low"], row[f"{interval}_high"]
            assert f"{100 * low:.1f} to {100 * high:.1f}" in words
    for cell in study.cells["main"]:
        grades = pd.read_parquet(results.evaluation(cell.evaluation).grades)["grade"]
        assert f"{100 * (grades == 'correct').mean():.1f}" in words
        for grade in ("correct", "truncated"):
            assert str((grades == grade).sum()) in words.replace(",", "")


def test_it_shows_how_diverse_every_systems_answers_are(finished) -> None:
    _, results, page = finished
    words, frame = page.words(), read_exploration(results.exploration("main"))
    assert set(frame["measure"]) == {*SHARES, *(measure.name for measure in MEASURES)}
    for row in frame[frame["measure"] == "entropy"].itertuples():
        own = f"{row.value:.3f} {row.low:.3f} to {row.high:.3f}"
        assert (own if pd.isna(row.against) else f"{signed(row.value, 3)} (") in words


def test_the_same_study_gives_the_same_bytes(finished) -> None:
    study, results, _ = finished
    assert page(study, results, results.report.folder) == results.report.page.read_text()


def test_a_finished_study_has_no_complaints_and_the_toy_is_marked(finished) -> None:
    words = finished[2].words()
    assert "isn’t complete" not in words
    assert "Not to be trusted" not in words
    assert "not the paper" in words


def test_paper_scale_has_no_banner_and_an_average(tmp_path: Path) -> None:
    study = make_study(tmp_path, "paper", problems=3)
    analyze("main", study, Results(tmp_path / "paper"), Results(tmp_path / "paper").table("main"))
    words = shown(study, Results(tmp_path / "paper")).words()
    assert "grades are gone" not in words  # an average has none of its own
    assert "not the paper" not in words
    assert "average of the benchmarks" in words


def test_a_deleted_evaluation_is_named_with_its_command(toy) -> None:
    study, results = toy
    gone = results.evaluation("grpo-toy/standard/toy-held-out").grades
    gone.unlink()
    command = f"snakemake --cores 2 {gone}"
    before = shown(study, results).words()
    for said in ("isn’t complete", command, "grades are gone"):
        assert said in before
    analyze("main", study, results, results.table("main"))
    after = shown(study, results).words()
    for said in ("missing: not there yet", command):
        assert said in after


def test_a_missing_table_and_one_of_another_study_are_named(toy) -> None:
    study, results = toy
    path = results.table("main")
    frame = pd.read_parquet(path)
    frame.assign(spec="0123456789ab").to_parquet(path, index=False)
    assert "another version of the study" in shown(study, results).words()
    path.unlink()
    words = shown(study, results).words()
    for said in ("isn't computed yet", f"snakemake --cores 2 {path}"):
        assert said in words


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda run: run.model_card.unlink(), "stopped or running at step 100 of 100"),
        (lambda run: [p.unlink() for p in (run.model_card, run.metrics)], "not there yet"),
        (lambda run: run.model_card.write_text('{"spec": "0123456789ab"}'), "trained for another spec"),
    ],
)
def test_a_run_that_isnt_finished_is_named(toy, damage, said: str) -> None:
    study, results = toy
    damage(results.run("ngrpo-toy"))
    words = shown(study, results).words()
    for part in ("Training run ngrpo-toy", said, "snakemake --cores 2 ngrpo-toy"):
        assert part in words


def test_a_line_that_a_kill_cut_off_is_left_out_of_the_curves(toy) -> None:
    study, results = toy
    log = results.run("ngrpo-toy").metrics
    log.write_text(log.read_text() + '{"step": 101, "rew')
    assert "100 of 100" in shown(study, results).words()


def test_parity_above_its_limit_is_at_the_top_of_the_page(toy) -> None:
    study, results = toy
    log = results.run("ngrpo-toy").metrics
    rows = [json.loads(line) for line in log.read_text().splitlines()]
    rows[40]["parity/max"] = 0.3
    log.write_text("\n".join(map(json.dumps, rows)) + "\n")
    words = shown(study, results).words()
    assert "Not to be trusted. Run ngrpo-toy" in words
    assert words.index("Not to be trusted") < words.index("Results")


def test_claims_come_first_and_the_papers_get_no_verdict_at_toy_scale(finished) -> None:
    _, results, page = finished
    words = page.words()
    assert words.index("Claims") < words.index("Results")
    claims = json.loads(results.report.claims.read_text())
    assert len(claims) == len([a for a in page.all("tr") if a.get("id", "").startswith("claim-")]) >= 20
    for claim in claims:
        assert (claim["verdict"] is None) == (claim["scale"] == "paper")
        assert " ".join(claim["says"].split()) in words
    verdicts = [a["class"] for a in page.all("span") if a.get("class", "").startswith("verdict")]
    given = {claim["verdict"].replace(" ", "-") for claim in claims if claim["verdict"]}
    assert set(verdicts) == {"verdict no-verdict", *(f"verdict {verdict}" for verdict in given)}
    assert "(Of the toy scale, not of the paper.)" in words


def test_effects_on_the_page_are_those_of_the_grades(finished) -> None:
    _, results, page = finished
    claim = next(c for c in json.loads(results.report.claims.read_text()) if c["id"] == "ngrpo-mean-1.5b")
    (part,) = claim["parts"]
    ours, theirs = (pd.read_parquet(results.root / file) for file in part["files"])
    difference = (ours["grade"] == "correct").mean() - (theirs["grade"] == "correct").mean()
    assert part["estimate"] == pytest.approx(difference)
    assert points(difference) in page.words()


def test_a_misnamed_claim_says_so_in_its_place(toy) -> None:
    study, results = toy
    file = study.folder / "claims.yaml"
    file.write_text(file.read_text().replace("method: ngspo}", "method: ngsp}"))
    words = shown(study, results).words()
    assert "The claim names what doesn’t exist: there is no method 'ngsp' (did you mean 'ngspo'?)" in words


def test_a_study_without_claims_and_paper_values_still_has_its_page(toy) -> None:
    study, results = toy
    for name in ("claims.yaml", "paper_values.yaml"):
        (study.folder / name).unlink()
    assert "nothing is claimed" in shown(study, results).words()


def test_the_papers_values_stand_beside_ours(tmp_path: Path) -> None:
    study = make_study(tmp_path, "paper", problems=5)
    results = Results(tmp_path / "paper")
    analyze("main", study, results, results.table("main"))
    page = shown(study, results)
    words = page.words()
    sheet = gather(study, results).sheets["main"]
    for _, row in sheet.iterrows():
        assert f"paper {100 * row['paper']:.1f} ({points(row['difference'])})" in words
    looks = [a.get("class", "") for a in page.all("span")]
    assert looks.count("value best") == ((sheet["rank"] == 1).sum())
    assert "5 problems, the paper has 30" in words
    assert "underpowered" in words


def test_what_is_off_is_red_at_the_top_of_the_page_and_in_its_row(toy) -> None:
    study, results = toy
    file = results.run("ngrpo-toy").verl_settings
    settings = json.loads(file.read_text())
    settings["actor_rollout_ref"]["actor"]["optim"]["lr"] = 0.0002
    file.write_text(json.dumps(settings))
    page = written(study, results)
    words = page.words()
    said = "Run ngrpo-toy: actor_rollout_ref.actor.optim.lr: 0.0002 (runs/ngrpo-toy/verl.json)"
    assert f"{said}, where the spec requires 0.0001" in words
    assert words.index(said) < words.index("Claims The paper’s sentences")
    assert [a for a in page.all("p") if a.get("class") == "alert"]
    assert "1 are off" in words
    rows = pd.read_csv(results.report.compliance)
    assert list(rows.loc[rows["state"] == "off", "what"]) == ["actor_rollout_ref.actor.optim.lr"]


def test_the_fidelity_table_has_every_switch_that_applies(finished) -> None:
    words = finished[2].words()
    for said in (
        "Paper and released code",
        "mixing weights",
        "rollout temperature",
        "No two runs of this study differ",
    ):
        assert said in words
    assert "GSPO clip" not in words


def luminance(color: str) -> float:
    parts = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    r, g, b = (p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
    return 0.2126 * r + 0.7152 * g + 0.0722 * b


def contrast(a: str, b: str) -> float:
    high, low = sorted((luminance(a), luminance(b)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_colors_reach_their_contrast_on_light_and_dark(finished) -> None:
    text = finished[1].report.page.read_text()
    light, dark = (dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", part)) for part in text.split("@media screen", 1))
    for colors in (light, dark):
        for name, color in colors.items():
            if name not in ("paper", "raised", "rule", "grid", "caution-ground"):
                assert contrast(color, colors["paper"]) >= 4.5, name
        assert contrast(colors["caution"], colors["caution-ground"]) >= 4.5
        assert contrast(colors["muted"], colors["raised"]) >= 4.5
    assert contrast("#777777", "#888888") < 4.5


def run_notebook(name: str, results: Results, out: Path) -> list[dict]:
    """A stored notebook, which has no outputs, run alone by papermill on a study; returns its outputs."""
    notebook = ROOT / "notebooks" / f"{name}.ipynb"
    cells = json.loads(notebook.read_text())["cells"]
    assert not any(c.get("outputs") or c.get("execution_count") for c in cells)
    papermill = Path(sys.executable).parent / "papermill"
    parameters = {"results": str(results.root.parent), "config": str(results.root.parent / "config"), "scale": "toy"}
    options = [word for key, value in parameters.items() for word in ("-p", key, value)]
    done = subprocess.run(
        [papermill, notebook, out, *options, "--no-progress-bar"],
        cwd=out.parent,
        text=True,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return [o for c in json.loads(out.read_text())["cells"] for o in c.get("outputs", [])]


def drawn(outputs: list[dict]) -> int:
    return sum("image/svg+xml" in o.get("data", {}) for o in outputs)


def test_the_results_notebook_runs_alone(finished, tmp_path: Path) -> None:
    outputs = run_notebook("results", finished[1], tmp_path / "results.ipynb")
    assert drawn(outputs) == 1 + len(CURVES)
    assert sum("text/html" in o.get("data", {}) for o in outputs) == 4  # values twice, answers, and what follows


def test_the_ablations_notebook_runs_alone(finished, tmp_path: Path) -> None:
    outputs = run_notebook("ablations", finished[1], tmp_path / "ablations.ipynb")
    assert drawn(outputs) == 1  # problem by problem; this study varies no ρ
    assert any("no table of this study varies ρ" in str(o.get("text")) for o in outputs)


def test_the_reproducibility_notebook_runs_alone(finished, tmp_path: Path) -> None:
    outputs = run_notebook("reproducibility", finished[1], tmp_path / "reproducibility.ipynb")
    assert sum("text/html" in o.get("data", {}) for o in outputs) == 6
    assert any("0 off" in str(o.get("text")) for o in outputs)
