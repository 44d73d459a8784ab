"""Mixing in a verl run and a server of one's own, as docs/in-your-own-code.md says: its lines, on verl's own data set
and loop, and on sglang's own server."""

import sys
from pathlib import Path

import pytest

pytest.importorskip("verl", reason="the training environment has verl")

from own_code import RUN, STEPS, TABLE, configuration, figures, follow, follow_server, make_home

from ngrpo.errors import UserError
from ngrpo.study.mixing import GaussianMixer, NeighborMixer
from ngrpo.training.verl.own_run import ROLLOUT, mixing

pytestmark = [pytest.mark.train, pytest.mark.verl]

PATHS = ":".join(sys.path)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a reader of the page has."""
    return make_home(tmp_path_factory.mktemp("own code"))


def test_the_pages_lines_train_in_verls_own_loop_with_parity(home: Path) -> None:
    done = follow(home, TABLE + RUN, sys.executable, PATHS)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert len(figures(done, "parity/max")) == STEPS
    assert max(figures(done, "parity/max")) <= 1e-4
    assert all(0 < share < 0.4 for share in figures(done, "mixing/share"))
    assert "[mixing] actor_rollout_ref.rollout.calculate_log_probs: True, in place of False" in done.stdout


def test_without_our_workers_verl_refuses_the_rollout(home: Path) -> None:
    done = follow(home, TABLE + RUN.replace("runtime_env=runtime_env()", "runtime_env={}"), sys.executable, PATHS)
    assert done.returncode != 0
    assert ROLLOUT in done.stdout + done.stderr


def test_what_cannot_be_mixed_or_replayed_is_refused_at_once(home: Path) -> None:
    config = configuration(home)
    with pytest.raises(UserError, match=r"no table .*nowhere"):
        mixing(config, NeighborMixer(kind="neighbors", rho=0.1), neighbors=home / "nowhere")
    with pytest.raises(UserError, match="there is no table"):
        mixing(config, NeighborMixer(kind="neighbors", rho=0.1))
    assert config.actor_rollout_ref.rollout.name == "sglang"
    mixing(config, GaussianMixer(kind="gaussian"))
    assert config.actor_rollout_ref.rollout.ngrpo.exploration.kind == "gaussian"


def test_the_pages_lines_serve_and_ask(home: Path) -> None:
    said = follow_server(home, Path(sys.executable).parent, PATHS)
    assert 0 < int(said.split("mixed steps:")[1]) < 30
