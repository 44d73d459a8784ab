"""The sampling stage: n samples a problem, the same whatever is killed, and no prompt cut in silence."""

import json
import multiprocessing
import os
import random
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from ngrpo.data.datasets import make_dataset, read_problems, write_problems
from ngrpo.errors import UserError
from ngrpo.stages import samples as evaluate
from ngrpo.stages.base_models import make_model
from ngrpo.stages.sample_files import SCHEMA
from ngrpo.stages.samples import sample
from ngrpo.study.sources import Dataset, Model, ToyModel, ToyProblems
from ngrpo.study.specs import DatasetSpec, Decoding, EvaluationSpec, ModelSpec
from ngrpo.study.versions import VERSIONS

pytestmark = pytest.mark.train

POLICY = ModelSpec(id="toy", model=Model(source=ToyModel(kind="toy", steps=20), dtype="float32"))
BENCHMARK = DatasetSpec(
    id="sums",
    dataset=Dataset(source=ToyProblems(kind="toy", count=6, held_out=True, seed=1), instruction=""),
)
OTHER = DatasetSpec(
    id="others",
    dataset=Dataset(source=ToyProblems(kind="toy", count=4, held_out=True, seed=2), instruction=""),
)
N, SHARDS = 4, 3
FILE = "sums.samples.parquet"


def _spec(**changes) -> EvaluationSpec:
    given = {
        "scale": "toy",
        "policy": POLICY,
        "decoding_id": "standard",
        "decoding": Decoding(temperature=1.0, top_p=0.95, max_new_tokens=24),
        "benchmark": BENCHMARK,
        "max_prompt_tokens": 16,
        "samples": N,
        "seed": 1,
        "engine": "transformers",
    }
    return EvaluationSpec(**{**given, **changes})


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> dict:
    """Model and problems, as `sample` takes them; two problems a shard."""
    home = tmp_path_factory.mktemp("inputs")
    make_model(POLICY, home / "model")
    for benchmark in (BENCHMARK, OTHER):
        make_dataset(benchmark, home / "data" / f"{benchmark.id}.parquet")
    return {"model": home / "model", "data": home / "data", "neighbors": None, "shard_samples": 2 * N}


@pytest.fixture(scope="module")
def undisturbed(inputs: dict, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The samples of a run that nothing interrupts."""
    out = tmp_path_factory.mktemp("undisturbed")
    sample([_spec()], **inputs, out=out)
    return out / FILE


def _card(out: Path) -> dict:
    return json.loads(out.with_suffix(".card.json").read_text())


def test_each_problem_has_n_samples_in_the_declared_schema(inputs: dict, undisturbed: Path) -> None:
    table = pq.read_table(undisturbed)
    assert table.schema.equals(SCHEMA)
    rows = table.to_pylist()
    ids = [r["id"] for r in read_problems(inputs["data"] / "sums.parquet")]
    assert [(r["problem_id"], r["sample"]) for r in rows] == [(i, n) for i in ids for n in range(N)]
    assert {r["spec"] for r in rows} == {_spec().digest}
    assert {r["decoding"] for r in rows} == {"standard"}
    assert {r["mixed"] for r in rows} == {0}
    for row in rows:
        assert row["finish_reason"] in ("stop", "length")
        assert (row["tokens"] == 24) if row["finish_reason"] == "length" else (1 <= row["tokens"] <= 24)
    assert len({r["text"] for r in rows}) > 1


def test_the_card_sums_the_samples_up_and_no_shard_is_left(undisturbed: Path) -> None:
    rows = pq.read_table(undisturbed).to_pylist()
    assert _card(undisturbed) == {
        "spec": _spec().digest,
        "version": VERSIONS["sample"],
        "problems": 6,
        "sampled": 6,
        "overlong_prompts": {},
        "samples": 6 * N,
        "tokens": sum(r["tokens"] for r in rows),
        "truncated": sum(r["finish_reason"] == "length" for r in rows),
    }
    assert sorted(p.name for p in undisturbed.parent.iterdir()) == [
        "sums.samples.card.json", "sums.samples.parquet", "sums.samples.time.json",
    ]  # fmt: skip


def _seeds(path: Path) -> list[int]:
    return pq.read_table(path)["seed"].to_pylist()


def test_seeds_are_distinct_and_only_the_studys_seed_changes_them(
    inputs: dict, undisturbed: Path, tmp_path: Path
) -> None:
    assert len(set(_seeds(undisturbed))) == 6 * N
    sample([_spec(samples=N - 1)], **inputs, out=tmp_path / "fewer")
    fewer = pq.read_table(tmp_path / "fewer" / FILE).to_pylist()
    remaining = [r for r in pq.read_table(undisturbed).to_pylist() if r["sample"] < N - 1]
    assert [(r["seed"], r["text"]) for r in fewer] == [(r["seed"], r["text"]) for r in remaining]
    sample([_spec(seed=2)], **inputs, out=tmp_path / "other")
    assert not set(_seeds(tmp_path / "other" / FILE)) & set(_seeds(undisturbed))


@pytest.mark.parametrize("shard_samples", [1, 3 * N, 10_000])
def test_the_size_of_shards_changes_no_sample(
    inputs: dict, undisturbed: Path, tmp_path: Path, shard_samples: int
) -> None:
    sample([_spec()], **{**inputs, "shard_samples": shard_samples}, out=tmp_path)
    assert pq.read_table(tmp_path / FILE).equals(pq.read_table(undisturbed))


class Crash(Exception):
    """What stops a run in these tests."""


def _crash_after(shards: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the stage crash when it has drawn so many shards."""

    def some(todo, *_):
        yield from todo[:shards]
        raise Crash

    monkeypatch.setattr(evaluate, "steps", some)


@pytest.mark.parametrize("done", range(SHARDS + 1))
def test_a_restarted_job_continues_where_it_was(
    inputs: dict, undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys, done: int
) -> None:
    with monkeypatch.context() as crashing:
        _crash_after(done, crashing)
        with pytest.raises(Crash):
            sample([_spec()], **inputs, out=tmp_path)
    assert not (tmp_path / FILE).exists()
    assert len(list(tmp_path.glob(".*/*.parquet"))) == done
    sample([_spec()], **inputs, out=tmp_path)
    assert (tmp_path / FILE).read_bytes() == undisturbed.read_bytes()
    assert (f"{done} of {SHARDS} shards are already there" in capsys.readouterr().err) == (done > 0)


def test_shards_of_another_size_or_spec_are_not_taken(
    inputs: dict, undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for spec, machine in ((_spec(), {"shard_samples": 3 * N}), (_spec(seed=2), {})):
        with monkeypatch.context() as crashing:
            _crash_after(1, crashing)
            with pytest.raises(Crash):
                sample([spec], **{**inputs, **machine}, out=tmp_path)
    sample([_spec()], **inputs, out=tmp_path)
    assert (tmp_path / FILE).read_bytes() == undisturbed.read_bytes()


def test_twenty_kills_at_random_moments_change_nothing(inputs: dict, undisturbed: Path, tmp_path: Path) -> None:
    out, moments = tmp_path / FILE, random.Random(0)
    # forked from a server that has imported everything, so that kills fall into the work and not into imports
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload(["ngrpo.stages.samples", "ngrpo.engines.transformers.engine", "transformers"])
    kills = finished = 0
    while kills < 20 or not finished:
        process = processes.Process(
            target=sample, args=([_spec()],), kwargs={**inputs, "shard_samples": 1, "out": tmp_path}
        )
        process.start()
        process.join(moments.uniform(0.1, 3.0) if kills < 20 else None)
        if process.is_alive():
            process.kill()
            process.join()
            kills += 1
        elif process.exitcode == 0:
            assert out.read_bytes() == undisturbed.read_bytes()
            finished += 1
            out.unlink()
        else:
            raise AssertionError(f"sampling ended with exit code {process.exitcode}")


def _long(folder: Path, inputs: dict, *numbers: int) -> dict:
    """The inputs with some of the problems made too long for the prompt."""
    rows = read_problems(inputs["data"] / "sums.parquet")
    for number in numbers:
        rows[number]["problem"] = "+".join(["11"] * 20)
    folder.mkdir()
    write_problems(folder / "sums.parquet", rows)
    return {**inputs, "data": folder}


def test_overlong_prompts_are_named_and_not_sampled(inputs: dict, undisturbed: Path, tmp_path: Path) -> None:
    out = tmp_path / FILE
    sample([_spec()], **_long(tmp_path / "data", inputs, 1, 4), out=tmp_path)
    card = _card(out)
    assert (card["problems"], card["sampled"], card["samples"]) == (6, 4, 4 * N)
    assert set(card["overlong_prompts"]) == {"00001", "00004"}
    assert all(tokens > 16 for tokens in card["overlong_prompts"].values())
    remaining = [r for r in pq.read_table(undisturbed).to_pylist() if r["problem_id"] not in card["overlong_prompts"]]
    assert pq.read_table(out).to_pylist() == remaining


def test_nothing_but_overlong_prompts_is_an_error(inputs: dict, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"(?s)every prompt is longer than 16 tokens.*sums\.parquet"):
        sample([_spec()], **_long(tmp_path / "data", inputs, *range(6)), out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_limit_asks_only_the_first_problems(inputs: dict, undisturbed: Path, tmp_path: Path) -> None:
    limited = BENCHMARK.model_copy(update={"dataset": BENCHMARK.dataset.model_copy(update={"limit": 2})})
    sample([_spec(benchmark=limited)], **inputs, out=tmp_path)
    texts = pq.read_table(tmp_path / FILE)["text"].to_pylist()
    assert texts == pq.read_table(undisturbed)["text"].to_pylist()[: 2 * N]


def test_a_model_that_isnt_there_is_named(inputs: dict, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"(?s)no tokenizer.*nowhere"):
        sample([_spec()], **{**inputs, "model": tmp_path / "nowhere"}, out=tmp_path)
    assert not list(tmp_path.iterdir())


# --- several benchmarks, one engine ---


def _both() -> list[EvaluationSpec]:
    return [_spec(), _spec(benchmark=OTHER)]


@pytest.fixture
def starts(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The engines that were started."""
    begun, start = [], evaluate.open_engine
    monkeypatch.setattr(
        evaluate, "open_engine", lambda kind, *args, **kw: begun.append(kind) or start(kind, *args, **kw)
    )
    return begun


def test_benchmarks_share_an_engine_and_no_sample_changes(
    inputs: dict, undisturbed: Path, tmp_path: Path, starts: list[str]
) -> None:
    sample(_both(), **inputs, out=tmp_path)
    assert starts == ["transformers"]
    assert (tmp_path / FILE).read_bytes() == undisturbed.read_bytes()
    assert {"sums", "others"} == {p.name.partition(".")[0] for p in tmp_path.iterdir()}
    assert pq.read_metadata(tmp_path / "others.samples.parquet").num_rows == 4 * N


def test_what_is_there_stays_and_only_the_rest_is_drawn(
    inputs: dict, tmp_path: Path, starts: list[str], capsys: pytest.CaptureFixture
) -> None:
    sample(_both(), **inputs, out=tmp_path)
    before = (tmp_path / FILE).stat().st_mtime_ns
    (tmp_path / "others.samples.parquet").unlink()
    sample(_both(), **inputs, out=tmp_path)
    assert "already there: sums" in capsys.readouterr().err
    assert (tmp_path / FILE).stat().st_mtime_ns == before
    assert (tmp_path / "others.samples.parquet").exists()
    sample(_both(), **inputs, out=tmp_path)
    assert len(starts) == 2  # nothing was lacking: no engine


@pytest.mark.parametrize("outdated", ["spec", "code", "model", "problems", "card"])
def test_what_is_outdated_is_drawn_again(inputs: dict, tmp_path: Path, starts: list[str], outdated: str) -> None:
    sample(_both(), **inputs, out=tmp_path)
    specs, file, card = _both(), tmp_path / FILE, (tmp_path / FILE).with_suffix(".card.json")
    if outdated == "spec":
        specs[0] = _spec(samples=N - 1)
    elif outdated == "code":
        card.write_text(json.dumps({**json.loads(card.read_text()), "version": 0}))
    elif outdated == "card":
        card.unlink()
    else:
        copied = {key: shutil.copytree(inputs[key], tmp_path / key) for key in ("model", "data")}  # as old as they were
        inputs = {**inputs, **copied}
        newer = file.stat().st_mtime + 1
        changed = next(copied["model"].iterdir()) if outdated == "model" else copied["data"] / "sums.parquet"
        os.utime(changed, (newer, newer))
        if outdated == "model":  # it made the other benchmark's samples, too
            os.utime(tmp_path / "others.samples.parquet", (newer, newer))
    before, other = file.stat().st_mtime_ns, (tmp_path / "others.samples.parquet").stat().st_mtime_ns
    sample(specs, **inputs, out=tmp_path)
    assert file.stat().st_mtime_ns != before
    assert (tmp_path / "others.samples.parquet").stat().st_mtime_ns == other
    assert _card(file)["spec"] == specs[0].digest
    assert len(starts) == 2


def test_a_kill_while_the_second_benchmark_is_drawn_keeps_the_firsts_shards(
    inputs: dict, undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    with monkeypatch.context() as crashing:
        _crash_after(SHARDS + 1, crashing)
        with pytest.raises(Crash):
            sample(_both(), **inputs, out=tmp_path)
    assert not (tmp_path / FILE).exists()
    sample(_both(), **inputs, out=tmp_path)
    assert f"{SHARDS + 1} of {SHARDS + 2} shards are already there" in capsys.readouterr().err
    assert (tmp_path / FILE).read_bytes() == undisturbed.read_bytes()


def test_one_engine_serves_no_two_decodings(inputs: dict, tmp_path: Path) -> None:
    hot = _spec(decoding_id="hot", decoding=Decoding(temperature=1.3, top_p=0.95, max_new_tokens=24))
    with pytest.raises(UserError, match=r"(?s)different policies, decodings or engines.*toy/standard and toy/hot"):
        sample([_spec(), hot], **inputs, out=tmp_path)
    assert not list(tmp_path.iterdir())
