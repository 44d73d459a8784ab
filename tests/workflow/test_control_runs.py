"""Every control at toy scale, in full: those that keep the reward learn, those that lose its meaning don't.

The study is the project's own toy with one table, so that these numbers are the ones that its report shows.
"""

import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

pytestmark = pytest.mark.controls

ROOT = Path(__file__).resolve().parents[2]
LEARN = {
    "GRPO",
    "N-GRPO",
    "k = 1",
    "random neighbors",
    "GRPO, τ = 0.9",
    "GRPO, τ = 1.1",
}
BLIND = {"shuffled rewards", "random rewards"}
"""Their reward says nothing about a response. That for any answer says a little: it is in neither set."""


@pytest.fixture(scope="module")
def controls(tmp_path_factory: pytest.TempPathFactory) -> tuple[pd.DataFrame, str]:
    """Mean@32 of each row of the table, with its interval over problems, and the report's page."""
    results = tmp_path_factory.mktemp("controls")
    run = [str(Path(sys.executable).parent / "snakemake"), "--cores", "2", "--nolock", "--config"]
    settings = ["tables=controls", "max_seeds=1", f"results={results}"]
    done = subprocess.run(
        [*run, *settings], cwd=ROOT, check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert done.returncode == 0, done.stdout[-8000:]
    table = pd.read_parquet(results / "toy" / "analysis" / "controls.parquet")
    return table, (results / "toy" / "report" / "index.html").read_text()


def test_a_reward_for_being_right_is_learned_from_and_a_blind_one_is_not(controls: tuple[pd.DataFrame, str]) -> None:
    table, _ = controls
    mean = table[(table["metric"] == "Mean@32") & table["against"].isna()].set_index("label")
    assert {*LEARN, *BLIND, "Base", "rewards for any answer"} == set(mean.index)
    base = mean.loc["Base", "problems_high"]
    above = set(mean.index[mean["value"] > base])
    assert above - {"rewards for any answer"} == LEARN


def test_the_page_shows_controls_in_a_table_of_their_own(controls: tuple[pd.DataFrame, str]) -> None:
    _, page = controls
    assert "Controls: without neighbors, at another temperature, without a reward for being right" in page
    for label in BLIND:
        assert label in page
