"""Offline: what lies in the hub's cache is taken without asking the hub, and archives stand in for data sets.

Nothing here has a network: the hub's library is told so, and a server on this machine is the archive.
"""

import http.server
import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hub_cache import COMMIT, fill_cache

from ngrpo.data.datasets import card_path, fetched_path, make_dataset, read_problems
from ngrpo.data.fetching import Archive
from ngrpo.errors import Unfinished, UserError
from ngrpo.hub import cache_folder, cached_snapshot
from ngrpo.stages.base_models import make_model
from ngrpo.study.sources import Dataset, Fields, FolderModel, HubDataset, HubModel, Model, ToyModel
from ngrpo.study.specs import DatasetSpec, ModelSpec

pytestmark = pytest.mark.train

ROWS = [{"question": f"What is {i} + {i}?", "answer": float(2 * i), "level": None if i else "easy"} for i in range(5)]
README = b"---\nconfigs:\n- config_name: default\n  data_files:\n  - split: test\n    path: data/test.jsonl\n---\n"


def _lines(rows: list[dict]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def _dataset(revision: str = COMMIT, **changes: str) -> DatasetSpec:
    source = HubDataset(kind="hub", repo="owner/set", revision=revision, split="test", **changes)
    return DatasetSpec(id="set", dataset=Dataset(source=source, fields=Fields(problem="question"), instruction=""))


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of the hub, on a machine without network."""
    from huggingface_hub import constants

    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return tmp_path / "home/hub"


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A folder, and the address that its files are served at."""
    folder = tmp_path / "served"
    folder.mkdir()

    class Files(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args: object) -> None:
            super().__init__(*args, directory=str(folder))

        def log_message(self, *args: object) -> None:
            """Say nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Files) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield folder, f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture(scope="module")
def model_files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The files of a toy model."""
    folder = tmp_path_factory.mktemp("model") / "toy"
    make_model(ModelSpec(id="toy", model=Model(source=ToyModel(kind="toy", steps=1), dtype="float32")), folder)
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "ngrpo.json"}


def test_a_data_set_in_the_cache_is_taken_without_the_hub(cache: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"(?s)can't be reached.*snakemake fetch.*--revision 0123.*--repo-type dataset"):
        make_dataset(_dataset(), tmp_path / "out.parquet")
    fill_cache(cache, "dataset", "owner/set", {"README.md": README, "data/test.jsonl": _lines(ROWS)})
    for revision in (COMMIT, "main"):
        make_dataset(_dataset(revision), tmp_path / f"{revision}.parquet")
        assert [r["answer"] for r in read_problems(tmp_path / f"{revision}.parquet")] == ["0", "2", "4", "6", "8"]
        origin = json.loads(card_path(tmp_path / f"{revision}.parquet").read_text())["origin"]
        assert origin.startswith(f"owner/set at {COMMIT}, split test, sha256 of rows ")
    with pytest.raises(UserError, match="split"):
        make_dataset(DatasetSpec.model_validate(json.loads(_dataset().text().replace('"test"', '"train"'))),
                     tmp_path / "other.parquet")  # fmt: skip


def test_a_hub_that_doesnt_answer_leaves_the_cache(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As `ngrpo doctor` says then: offline by mistake is as good as by intent."""
    from huggingface_hub import constants

    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    with socket.create_server(("127.0.0.1", 0)) as closed:
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{closed.getsockname()[1]}")
    with pytest.raises(Unfinished, match="can't be reached"):
        make_dataset(_dataset(), tmp_path / "out.parquet")
    fill_cache(cache, "dataset", "owner/set", {"README.md": README, "data/test.jsonl": _lines(ROWS)})
    make_dataset(_dataset(), tmp_path / "out.parquet")
    assert len(read_problems(tmp_path / "out.parquet")) == 5


def test_rows_that_cant_be_read_are_named(cache: Path, tmp_path: Path) -> None:
    fill_cache(cache, "dataset", "owner/set", {"README.md": README, "data/test.jsonl": b'{"question": "?"\n{'})
    with pytest.raises(UserError, match=r"(?s)its rows can't be read.*owner/set"):
        make_dataset(_dataset(), tmp_path / "out.parquet")


def test_a_part_of_a_data_set_isnt_in_the_cache(cache: Path) -> None:
    names = [f"test-0000{n}-of-00002.parquet" for n in range(2)]
    fill_cache(cache, "dataset", "owner/half", {names[0]: b"x"})
    fill_cache(cache, "dataset", "owner/whole", dict.fromkeys(names, b"x"))
    fill_cache(cache, "dataset", "owner/readme", {"README.md": README})
    assert cached_snapshot("dataset", "owner/half", COMMIT) is None
    assert cached_snapshot("dataset", "owner/readme", COMMIT) is None
    assert cached_snapshot("dataset", "owner/whole", COMMIT) is not None
    assert cached_snapshot("dataset", "owner/whole", "f" * 40) is None


def test_a_model_in_the_cache_is_copied_without_the_hub(
    cache: Path, tmp_path: Path, model_files: dict[str, bytes]
) -> None:
    spec = ModelSpec(
        id="m", model=Model(source=HubModel(kind="hub", repo="o/m", revision=COMMIT), dtype="float32", template="plain")
    )
    with pytest.raises(UserError, match="can't be reached"):
        make_model(spec, tmp_path / "m")
    snapshot = fill_cache(cache, "model", "o/m", model_files)
    make_model(spec, tmp_path / "m")
    for name, content in model_files.items():
        assert (tmp_path / "m" / name).read_bytes() == content
        assert not (tmp_path / "m" / name).is_symlink()
        assert (tmp_path / "m" / name).stat().st_nlink == 1
    (snapshot / "model.safetensors").resolve().unlink()  # half of a download isn't in the cache
    assert cached_snapshot("model", "o/m", COMMIT) is None
    with pytest.raises(UserError, match="doesn't hold all of this revision"):
        make_model(spec, tmp_path / "again")


def test_the_cache_lies_where_its_library_says(monkeypatch: pytest.MonkeyPatch) -> None:
    import subprocess
    import sys

    names = ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME")
    ask = "from huggingface_hub.constants import HF_HUB_CACHE; print(HF_HUB_CACHE)"
    for given in ({}, {"HF_HOME": "/a"}, {"XDG_CACHE_HOME": "/b"}, {"HF_HOME": "/a", "HF_HUB_CACHE": "/c"}):
        for name in names:
            monkeypatch.delenv(name, raising=False)
        for name, value in given.items():
            monkeypatch.setenv(name, value)
        said = subprocess.run([sys.executable, "-c", ask], text=True, capture_output=True, check=True)
        assert str(cache_folder()) == said.stdout.strip()


def test_an_archive_stands_in_and_other_rows_are_refused(cache: Path, tmp_path: Path, served: tuple[Path, str]) -> None:
    folder, address = served
    out, archive = tmp_path / "out.parquet", Archive(f"{address}/set.jsonl")
    with pytest.raises(UserError, match=r"neither hub nor archive.*set.jsonl.*404"):
        make_dataset(_dataset(), out, archive=archive)
    (folder / "set.jsonl").write_bytes(_lines(ROWS))
    make_dataset(_dataset(), out, archive=archive)  # the first fetch: its hash is written down
    first = json.loads(fetched_path(out).read_text())
    assert (first["repo"], first["commit"], first["split"]) == ("owner/set", COMMIT, "test")
    assert "set.jsonl (in place of owner/set" in json.loads(card_path(out).read_text())["origin"]
    fill_cache(cache, "dataset", "owner/set", {"README.md": README, "data/test.jsonl": _lines(ROWS)})
    make_dataset(_dataset(), out)  # the hub's own are the same rows
    assert json.loads(fetched_path(out).read_text()) == first
    before = out.read_bytes()
    fill_cache(cache, "dataset", "owner/other", {"README.md": README, "data/test.jsonl": _lines(ROWS[:4])})
    (cache / "datasets--owner--set").rename(cache / "gone")
    (cache / "datasets--owner--other").rename(cache / "datasets--owner--set")
    with pytest.raises(UserError, match=rf"(?s)sha256 is [0-9a-f]{{64}}, and should be {first['sha256']}") as error:
        make_dataset(_dataset(), out)
    assert "out.fetched.json" in str(error.value)
    assert out.read_bytes() == before
    with pytest.raises(UserError, match=f"and should be {'0' * 64}"):
        make_dataset(_dataset(), tmp_path / "new.parquet", archive=Archive(sha256="0" * 64))


def test_where_rows_come_from_is_no_part_of_what_they_are() -> None:
    plain, other = _dataset(), _dataset(mirror="https://example.org/set.parquet", sha256="0" * 64)
    assert plain.text() == other.text()
    assert plain.digest == other.digest


@pytest.mark.parametrize("mirror", ["ftp://x/a.parquet", "/home/me/a.parquet", "https://example.org/a.zip"])
def test_an_archive_is_a_file_of_rows_at_a_url(mirror: str) -> None:
    with pytest.raises(ValueError, match="mirror"):
        _dataset(mirror=mirror)


def test_a_folder_of_links_into_the_cache_is_copied(cache: Path, tmp_path: Path, model_files: dict[str, bytes]) -> None:
    snapshot = fill_cache(cache, "model", "o/m", {**model_files, "modeling.py": b"import os", "pytorch_model.bin": b""})
    source = FolderModel(kind="folder", path=str(snapshot))
    make_model(ModelSpec(id="m", model=Model(source=source, dtype="float32", template="plain")), tmp_path / "m")
    assert {p.name for p in (tmp_path / "m").iterdir()} == {*model_files, "ngrpo.json"}  # neither code nor pickles
    assert not any(p.is_symlink() for p in (tmp_path / "m").iterdir())
