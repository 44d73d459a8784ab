"""One node's processes meet where nobody else on the network can join them."""

import socket
from datetime import timedelta
from pathlib import Path

import pytest
import torch.distributed as dist

from ngrpo.engines import loopback
from ngrpo.study.layout import RunFiles
from ngrpo.training.verl.ray_job import _scratch

pytestmark = pytest.mark.train


def listening(port: int) -> set[str]:
    """The addresses on which this machine listens at a port, as the kernel shows them."""
    addresses = set()
    for name in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]:
            address, number = line.split()[1].rsplit(":", 1)
            if int(number, 16) == port and line.split()[3] == "0A":
                addresses.add(address)
    return addresses


def free_port() -> int:
    """A port that nobody has."""
    with socket.socket() as probe:
        probe.bind((loopback.HOST, 0))
        return probe.getsockname()[1]


def joined(method: str) -> None:
    """A process group of one, as verl's workers and sglang's make theirs."""
    dist.init_process_group("gloo", init_method=method, rank=0, world_size=1, timeout=timedelta(seconds=20))
    dist.barrier()


@pytest.mark.parametrize("ours", [True, False])
def test_torchs_store_listens_on_the_loopback_address_alone(ours: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loopback._module, "_create_c10d_store", loopback.create_store if ours else loopback._stock)
    port = free_port()
    try:
        joined(f"tcp://127.0.0.1:{port}")
        assert (listening(port) == {"0100007F"}) == ours  # stock, the second: on all addresses
    finally:
        dist.destroy_process_group()


def test_a_dead_trainers_logs_are_kept_and_nobody_elses_are_read(tmp_path: Path) -> None:
    run = RunFiles(tmp_path / "run")
    run.folder.mkdir()
    first = _scratch(run)
    logs = first.ray / "session_latest" / "logs"
    logs.mkdir(parents=True)
    (logs / "worker-1.out").write_text("its last words")
    (logs / "worker-2.out").symlink_to("/etc/hostname")
    second = _scratch(run)
    try:
        assert "its last words" in run.train_log.read_text()
        assert Path("/etc/hostname").read_text() not in run.train_log.read_text()
        assert not first.home.exists()
    finally:
        second.remove()
