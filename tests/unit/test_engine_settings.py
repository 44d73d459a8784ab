"""Settings that the sglang plugin refuses before any engine starts, each by name; beside each one what it takes."""

import pytest
import torch
from typing_extensions import override

import ngrpo.engines.sglang as plugin
from ngrpo.engines.sglang import hooks
from ngrpo.errors import UserError
from ngrpo.files import write_json
from ngrpo.method.mixers import GaussianMixer, GumbelMixer, NeighborMixer, NoMixer, SoftThinkingMixer, mixer_from
from ngrpo.method.neighbor_table import build

pytestmark = pytest.mark.train

VOCABULARY = 40


@pytest.fixture
def model(tmp_path):
    """A folder with as much of a model as `install` reads."""
    write_json(tmp_path / "model" / "config.json", {"vocab_size": VOCABULARY})
    return tmp_path / "model"


def table(folder, *, rows: int = VOCABULARY, k: int = 3, metric: str = "cosine"):
    """A neighbor table of random rows."""
    path = folder / f"{rows}.{metric}.k{k}.safetensors"
    build(torch.randn(rows, 8, generator=torch.Generator().manual_seed(0)), k, metric).save(path)
    return path


@pytest.fixture
def install(monkeypatch):
    """`plugin.install`, whose traces in sglang and in the plugin are taken back."""
    plugin.cpu.prepare()
    with hooks.quiet_import():
        import sglang.srt.entrypoints.engine as entry

    for name in ("run_scheduler_process", "run_detokenizer_process", "_launch_subprocesses"):
        monkeypatch.setattr(entry, name, getattr(entry, name))
    monkeypatch.setattr(plugin, "_settings", None)
    return plugin.install


def test_a_table_of_another_vocabulary_is_refused(install, model, tmp_path):
    install(table(tmp_path), model=model)
    with pytest.raises(UserError, match=f"the model has {VOCABULARY} embedding rows, the table 30") as error:
        install(table(tmp_path, rows=30), model=model)
    assert "neighbor table: rows" in str(error.value)


@pytest.mark.parametrize(
    ("mixer", "where"),
    [
        (NeighborMixer(0.1, metric="l2"), "mixer neighbors: metric"),
        (NeighborMixer(0.1, k=4), "mixer neighbors: k"),
    ],
)
def test_a_mixer_of_another_metric_or_larger_k_is_refused(install, model, tmp_path, mixer, where):
    install(table(tmp_path), model=model)
    assert plugin.request_params(NeighborMixer(0.1, k=2), 7)[plugin.KEY]["seed"] == 7
    with pytest.raises(UserError) as error:
        plugin.request_params(mixer, 7)
    assert error.value.where == where
    install(table(tmp_path, k=mixer.k, metric=mixer.metric), model=model)
    assert plugin.request_params(mixer, 7)


def test_mixing_neighbors_without_a_table_is_refused(install, model):
    install(None, model=model)
    with pytest.raises(UserError, match="without a neighbor table"):
        plugin.request_params(NeighborMixer(0.1), 7)
    assert plugin.request_params(NoMixer(), 7)


@pytest.mark.parametrize("rho", [-0.1, -1e-9, 1.0000001, 2, float("nan"), float("inf")])
def test_rho_outside_0_and_1_is_refused_wherever_a_mixer_is_made(rho):
    for make in (lambda: NeighborMixer(rho), lambda: mixer_from({"kind": "neighbors", "rho": rho})):
        with pytest.raises(UserError, match="rho is") as error:
            make()
        assert error.value.where == "mixer neighbors: rho"


@pytest.mark.parametrize("rho", [0, 0.0, 0.1, 1])
def test_rho_from_0_to_1_is_taken(rho):
    assert mixer_from({"kind": "neighbors", "rho": rho}).rho == rho


def test_every_mixer_is_served_by_every_engine(install, model, tmp_path):
    install(None, model=model)
    for mixer in (SoftThinkingMixer(), SoftThinkingMixer(keep=5), GaussianMixer(0.33), GumbelMixer(k=9)):
        assert plugin.request_params(mixer, 7)


def test_a_mixer_that_the_table_does_not_serve_is_refused_before_the_engine_starts(install, model, tmp_path):
    install(table(tmp_path), model=model, mixers=[NeighborMixer(0.1)])
    with pytest.raises(UserError, match="k is 4"):
        install(table(tmp_path), model=model, mixers=[NeighborMixer(0.1, k=4)])


def test_another_sglang_is_refused_and_the_needed_one_named(install, monkeypatch):
    install()
    for version in ("0.4.6.post4", "0.4.6", "0.5.0"):
        monkeypatch.setattr(plugin, "version", lambda _, installed=version: installed)
        with pytest.raises(UserError, match=f"sglang is {version}, ") as error:
            install()
        assert error.value.do == "install sglang==0.4.6.post5"


class Server:
    """sglang's server arguments with everything unsupported off, but for those given."""

    def __init__(self, **on):
        self.__dict__.update(dict(hooks.UNSUPPORTED), **on)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("speculative_algorithm", "EAGLE"),
        ("dp_size", 2),
        ("pp_size", 2),
        ("enable_dp_attention", True),
        ("enable_mixed_chunk", True),
        ("enable_hierarchical_cache", True),
        ("enable_torch_compile", True),
        ("enable_nan_detection", True),
        ("disaggregation_mode", "prefill"),
        ("lora_paths", ["adapter"]),
        ("is_embedding", True),
    ],
)
def test_each_unsupported_feature_is_refused_by_name(name, value):
    hooks.check_server(Server())
    with pytest.raises(UserError, match=name) as error:
        hooks.check_server(Server(**{name: value}))
    assert error.value.where == f"sglang: {name}"


def test_every_unsupported_feature_is_off_in_sglangs_own_defaults():
    from sglang.srt.server_args import ServerArgs

    hooks.check_server(ServerArgs(model_path="none", **plugin.cpu.server_arguments({})))


def test_an_override_without_its_stock_method_names_the_version_that_has_it(overrides):
    class Stock:
        def run_batch(self): ...

    class Fits(Stock):
        @override
        def run_batch(self): ...

        def own(self): ...

    class Misses(Stock):
        @override
        def run_batches(self): ...

    overrides.check_overrides(Fits)
    with pytest.raises(UserError, match="Stock has no run_batches") as error:
        overrides.check_overrides(Misses)
    assert plugin.VERSION in error.value.do


class Part:
    """Has what it is given."""

    def __init__(self, **given):
        self.__dict__.update(given)


@pytest.fixture
def overrides(install, monkeypatch):
    """The substitutes, in place in this process until the test ends."""
    from ngrpo.engines.sglang import overrides

    for module, name, _ in overrides.SUBSTITUTES:
        monkeypatch.setattr(module, name, getattr(module, name))
    for owner in (overrides.MixingScheduler, overrides.MixingRunner):
        monkeypatch.setattr(owner, "settings", None, raising=False)
    monkeypatch.setattr(overrides.MixingScheduler, "running", None)
    overrides.substitute(plugin.PluginSettings())
    return overrides


@pytest.fixture
def running(overrides, monkeypatch):
    """A scheduler built from the substitutes, as far as the check at its start looks at it."""

    def bare(kind, **given):
        made = object.__new__(kind)
        made.__dict__.update(given)
        return made

    runner = bare(overrides.MixingRunner, mixing=Part(hooked=lambda: True))
    made = bare(
        overrides.MixingScheduler,
        tp_worker=Part(worker=Part(model_runner=runner)),
        running_batch=overrides.MixingBatch(reqs=[]),
        tree_cache=bare(overrides.MixingCache),
    )
    monkeypatch.setattr(overrides.MixingScheduler, "running", made)
    return made


class Pipe(list):
    """Keeps what is sent."""

    send = list.append


def test_a_scheduler_says_that_it_is_ready_once_every_substitute_is_in_place(running):
    pipe = Pipe()
    hooks.Report(pipe).send({"status": "ready"})
    assert pipe == [{"status": "ready", plugin.KEY: {"substitutes": 6}}]


@pytest.mark.parametrize("number", range(6))
def test_a_class_that_sglang_takes_from_elsewhere_ends_the_start_by_name(running, overrides, monkeypatch, number):
    module, name, ours = overrides.SUBSTITUTES[number]
    monkeypatch.setattr(module, name, ours.__mro__[1])
    with pytest.raises(UserError, match=rf"without these parts.*{module.__name__}\.{name}"):
        hooks.Report(Pipe()).send({})


def test_a_scheduler_built_from_stock_parts_ends_the_start_by_name(running, overrides, monkeypatch):
    from sglang.srt.managers.schedule_batch import ScheduleBatch
    from sglang.srt.mem_cache.chunk_cache import ChunkCache
    from sglang.srt.mem_cache.radix_cache import RadixCache

    runner = running.tp_worker.worker.model_runner
    for holder, name, stock, word in (
        (running, "running_batch", ScheduleBatch(reqs=[]), "running batch"),
        (running, "tree_cache", object.__new__(RadixCache), "prefix cache"),
        (running.tp_worker.worker, "model_runner", Part(), "model runner"),
        (runner, "mixing", Part(hooked=lambda: False), "embedding lookup"),
        (overrides.MixingScheduler, "running", None, "scheduler"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(holder, name, stock)
            with pytest.raises(UserError, match=word):
                hooks.Report(Pipe()).send({})
    monkeypatch.setattr(running, "tree_cache", object.__new__(ChunkCache))  # shares nothing: nothing to replace
    hooks.Report(Pipe()).send({})


@pytest.mark.parametrize("seed", [-1, 1 << 62])
def test_seeds_outside_their_range_are_refused(install, seed):
    install()
    with pytest.raises(UserError, match="request: seed"):
        plugin.request_params(NoMixer(), seed)
    assert plugin.request_params(NoMixer(), (1 << 62) - 1)
