"""`ngrpo claim`: all claims with their verdicts, or one with everything that is known of it."""

from pathlib import Path

import pytest
from click.testing import CliRunner
from synthetic_study import ROOT, make_study

from ngrpo.claims.verdicts import judge_claims
from ngrpo.cli import main
from ngrpo.study.expand import load_study
from ngrpo.study.layout import Results
from ngrpo.study.predicates import read_claims


def shown(*words: object) -> str:
    """What `ngrpo claim` prints."""
    ended = CliRunner().invoke(main, ["claim", *map(str, words)])
    assert ended.exit_code == 0, ended.output
    return ended.output


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The options of a toy study with three seeds."""
    folder = tmp_path_factory.mktemp("claims")
    make_study(folder, problems=24, seeds=3)
    return ["--config", str(folder / "config"), "--results", str(folder)]


def test_every_claim_is_listed_with_its_verdict(toy) -> None:
    text = shown(*toy)
    every = read_claims(ROOT / "config")
    claims = [name for name, claim in every.items() if claim.scale in ("paper", "toy")]  # not those of the scale pocket
    assert len(claims) < len(every)
    rows = {line.split()[0]: line for line in text.splitlines() if line.split()[:1] and line.split()[0] in every}
    assert list(rows) == claims
    study = load_study(Path(toy[1]), "toy", Path(toy[-1]) / "toy")
    for claim in judge_claims(study, Results(Path(toy[-1]) / "toy")):
        assert f"  {claim.verdict or 'no verdict'}  " in rows[claim.id]
    assert f"{len(claims)} claims: 52 without a verdict at scale toy, " in text


def test_one_claim_says_what_it_is_what_is_known_and_what_it_takes(toy) -> None:
    results = Path(toy[-1]) / "toy"
    settings = f"--config config={toy[1]} results={results.parent}"
    text = shown("toy-ngrpo-as-good", *toy)
    for said in (
        "toy-ngrpo-as-good: N-GRPO's answers are about as often right as GRPO's.\n",
        "where       the toy study (not of the paper)\n",
        "test        ngrpo within 10 points of grpo: mean, toy-held-out\n",
        "limit       ours: a quarter of what either learns",
        "            on these benchmarks: ",
        "            on problems like these: ",
        "effect      N-GRPO − GRPO: Mean@32, held-out sums (toy Qwen2 (0.3M))\n",
        "3 seeds, 24 problems × 32)\n",
        f"evidence    snakemake --cores 2 claim-toy-ngrpo-as-good {settings}\n",
        f"decide      snakemake --cores 2 decide-toy-ngrpo-as-good {settings} (",
    ):
        assert said in text, (said, text)
    assert "adjusted" in text
    assert not (results / "looks.json").exists()  # reading is no look
    missing = shown("toy-rho-matters-little", *toy)
    assert (
        "verdict     not run. Evidence is missing.\nmissing     no table of scale toy measures ngrpo-rho0.2" in missing
    )


def test_a_claim_of_the_paper_shows_its_power_and_price(tmp_path: Path) -> None:
    options = ["--config", ROOT / "config", "--scale", "paper", "--results", tmp_path]
    text = shown("ngrpo-over-grpo-1.5b", *options)
    assert "estimator   bootstrap of Pass@k" in text
    assert "verdict     not run" in text
    assert "power       on these benchmarks: " in text
    assert "seeds for 80 % power at +1.76 points: " in text
    assert "USD; 1 configured\n" in text
    other = shown("toy-control", *options)
    assert "none here: it is a claim of scale toy (ngrpo claim toy-control --scale toy)" in other


def test_a_mistyped_claim_is_answered_with_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["claim", "ngrpo-over-grpo-1.5", "--config", str(ROOT / "config")])
    assert ended.value.code == 1
    assert "there is no claim 'ngrpo-over-grpo-1.5'" in capsys.readouterr().err
