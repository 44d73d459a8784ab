"""Neighbor tables and the mixing step, against faiss, one matrix product, torch.cdist and a search at every step.

Slow peers run on a slice of the queries against the whole matrix, scaled to all queries; the rows say so.
"""

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import torch

from benchmarks.rows import row, seconds
from ngrpo.method.knn.search import narrow_filters
from ngrpo.method.mixers import NeighborMixer, blend
from ngrpo.method.neighbor_table import nearest
from ngrpo.stages.base_models import make_model
from ngrpo.study.expand import load_study

ENV = "train"
NAMES = (
    "cosine-table-smollm2-vs-faiss",
    "cosine-table-wide-vs-faiss",
    "cosine-table-vs-faiss",
    "cosine-table-vs-sgemm",
    "l2-table-vs-faiss",
    "l2-table-vs-sgemm",
    "l1-table-vs-cdist",
    "table-peak-memory",
    "mixing-step",
)
ROOT = Path(__file__).resolve().parents[1]
V, D, K = 32_768, 1536, 3
FAISS = {"cosine-table-smollm2": 3, "cosine-table-wide": 5, "cosine-table": 4, "l2-table": 4}
"""How many times as fast as faiss a table is to be made, by its rows: real ones, and random ones, the worst case."""
FAISS_QUERIES, SGEMM_ROWS, L1_QUERIES = 2048, 8192, 512
QWEN_V, WIDEST_D = 151_936, 3584


def _matrix(rows: int, d: int) -> torch.Tensor:
    return torch.randn(rows, d, generator=torch.Generator().manual_seed(0))


def _warm_up() -> None:
    """Compile the kernels, so that no row pays for it."""
    for metric in ("cosine", "l2", "l1"):
        nearest(_matrix(5000, 32), K, metric)
        nearest(_matrix(500, 32), K, metric, queries=torch.arange(100))


def same_neighbors(E: torch.Tensor, ours: torch.Tensor, theirs: torch.Tensor, metric: str) -> bool:
    """Whether two lists of others (q, m) of the first q rows agree, in float64, up to the peer's float32 rounding."""
    differ = torch.nonzero(ours != theirs)
    for i, c in differ.tolist():
        x, a, b = E[i].double(), E[ours[i, c]].double(), E[theirs[i, c]].double()
        if metric == "cosine":
            near, far = (-(x @ y) / (x.norm() * y.norm()) for y in (a, b))
        else:
            near, far = ((x - y).norm(p=1 if metric == "l1" else 2) for y in (a, b))
        if abs(near - far) > 1e-5 * abs(far):
            return False
    return True


@cache
def _smollm2() -> torch.Tensor:
    """SmolLM2-135M's input embeddings (49,152 × 576), from the package that the scale pocket takes them from."""
    from transformers import AutoModelForCausalLM

    with tempfile.TemporaryDirectory() as home:
        folder = Path(home) / "model"
        make_model(load_study(ROOT / "config", "pocket").models["smollm2-135m"], folder)
        model = AutoModelForCausalLM.from_pretrained(folder, torch_dtype=torch.float32, trust_remote_code=False)
        return model.get_input_embeddings().weight.detach().clone()


def _wide() -> torch.Tensor:
    """Rows of Qwen2.5-1.5B's width (V, D) with the cosines of SmolLM2's first V: those, turned into D dimensions."""
    d = _smollm2().shape[1]
    turn = torch.linalg.qr(_matrix(D, d)).Q
    return _smollm2()[:V] @ turn.T


def _against_faiss(name: str, metric: str, E: torch.Tensor, ours: float, table: torch.Tensor, what: str) -> dict:
    import faiss

    faiss.omp_set_num_threads(torch.get_num_threads())
    rows, d = E.shape
    X = torch.nn.functional.normalize(E, dim=1).numpy() if metric == "cosine" else E.numpy()
    index = faiss.IndexFlatIP(d) if metric == "cosine" else faiss.IndexFlatL2(d)
    index.add(X)
    neighbors: list[Any] = []
    peer = seconds(lambda: neighbors.append(index.search(X[:FAISS_QUERIES], K)[1]), 3) * rows / FAISS_QUERIES
    same = same_neighbors(E, table[:FAISS_QUERIES, 1:], torch.from_numpy(neighbors[0][:, 1:]), metric)
    narrow = [getattr(make, "func", make).__name__ for make, _ in narrow_filters()]
    return row(
        f"{name}-vs-faiss",
        ours=ours,
        peer=peer,
        unit="s",
        ratio=peer / ours,
        at_least=FAISS[name],
        holds=same,
        note=f"{what}: V={rows}, d={d}, k={K}; {type(index).__name__} on {FAISS_QUERIES} queries, scaled to V; "
        f"neighbors {'identical' if same else 'DIFFER'} there; narrow filters here: {', '.join(narrow) or 'none'}",
    )


def _against_sgemm(metric: str, E: torch.Tensor, ours: float) -> dict[str, Any]:
    out = torch.empty(SGEMM_ROWS, V)
    peer = seconds(lambda: torch.mm(E[:SGEMM_ROWS], E.T, out=out), 4) * V / SGEMM_ROWS
    return row(
        f"{metric}-table-vs-sgemm",
        ours=ours,
        peer=peer,
        unit="s",
        ratio=ours / peer,
        at_most=0.7,
        note=f"Gaussian rows: V={V}, d={D}; torch.mm in float32 on {SGEMM_ROWS} rows, scaled to V",
    )


def _angle_rows(name: str, metric: str, what: str, names: tuple[str, ...]) -> Iterator[dict[str, Any]]:
    """The rows of one table: of E's rows by a cosine or L2. name: of the table."""
    wanted = {peer for peer in ("faiss", "sgemm") if f"{name}-vs-{peer}" in names}
    if not wanted:
        return
    E = {"cosine-table-smollm2": _smollm2, "cosine-table-wide": _wide}.get(name, lambda: _matrix(V, D))()
    tables: list[torch.Tensor] = []
    ours = seconds(lambda: tables.append(nearest(E, K, metric)), 3)
    if "faiss" in wanted:
        yield _against_faiss(name, metric, E, ours, tables[0], what)
    if "sgemm" in wanted:
        yield _against_sgemm(metric, E, ours)


def _l1_row() -> dict[str, Any]:
    E = _matrix(V, D)
    queries = torch.arange(L1_QUERIES)
    tables: list[torch.Tensor] = []
    ours = seconds(lambda: tables.append(nearest(E, K, "l1", queries=queries)), 2)
    neighbors: list[torch.Tensor] = []
    peer = seconds(lambda: neighbors.append(torch.cdist(E[:L1_QUERIES], E, p=1.0).topk(K, largest=False).indices))
    same = same_neighbors(E, tables[0][:, 1:], neighbors[0][:, 1:], "l1")
    return row(
        "l1-table-vs-cdist",
        ours=ours,
        peer=peer,
        unit="s",
        ratio=peer / ours,
        at_least=3,
        holds=same,
        note=f"{L1_QUERIES} queries of V={V}, d={D}; a whole table uses each pair for both its rows; "
        f"neighbors {'identical' if same else 'DIFFER'}",
    )


def peak_beyond_E(rows: int, d: int, metric: str) -> float:
    """MiB that building a table adds to a process that holds E; run in a process of its own."""
    _warm_up()
    E = _matrix(rows, d)
    before = _memory("VmRSS")
    nearest(E, K, metric)
    return _memory("VmHWM") - before


def _memory(what: str) -> float:
    """This process's resident memory in MiB, now (VmRSS) or at its highest (VmHWM)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith(what)) / 1024


def _memory_row() -> dict[str, Any]:
    peaks = []
    for rows, d in ((QWEN_V, 64), (8192, WIDEST_D)):
        code = f"from benchmarks.neighbors import peak_beyond_E as peak; print(peak({rows}, {d}, 'cosine'))"
        done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True)
        peaks.append(float(done.stdout.split()[-1]))
    return row(
        "table-peak-memory",
        ours=sum(peaks),
        peer=None,
        unit="MiB",
        at_most=1024,
        note=f"beyond E; V={QWEN_V}, d=64: {peaks[0]:.0f}, plus a whole panel, d={WIDEST_D}, V=8192: {peaks[1]:.0f}",
    )


def _mixing_row() -> dict[str, Any]:
    B = 64
    E, z = _matrix(QWEN_V, D), _matrix(B, QWEN_V)
    unit = torch.nn.functional.normalize(E, dim=1)
    table = torch.randint(QWEN_V, (QWEN_V, K), dtype=torch.int32)
    table[:, 0] = torch.arange(QWEN_V)
    mixer = NeighborMixer(rho=1.0, k=K)
    token, seed, position = torch.zeros(B, dtype=torch.int64), torch.arange(B), torch.full((B,), 7)

    def by_table() -> torch.Tensor:
        step = mixer.step(z, token, seed, position, table)
        return blend(E[step.ids], step.weights)

    def by_search() -> torch.Tensor:
        anchor = z.argmax(-1)
        ids = (unit[anchor] @ unit.T).topk(K).indices
        alpha = torch.softmax(z.gather(-1, ids), -1)
        return (alpha.unsqueeze(-1) * E[ids]).sum(1)

    by_table(), by_search()
    ours, peer = seconds(by_table, 20), seconds(by_search, 5)
    return row(
        "mixing-step",
        ours=1e3 * ours,
        peer=1e3 * peer,
        unit="ms",
        ratio=peer / ours,
        at_least=30,
        note=f"B={B}, V={QWEN_V}, d={D}, every sequence mixed; the peer searches rows normalized in advance",
    )


def rows(names: tuple[str, ...] = NAMES) -> Iterator[dict[str, Any]]:
    """The rows so named."""
    _warm_up()
    yield from _angle_rows("cosine-table-smollm2", "cosine", "SmolLM2's rows", names)
    yield from _angle_rows("cosine-table-wide", "cosine", "SmolLM2's rows, turned into 1536 dimensions", names)
    yield from _angle_rows("cosine-table", "cosine", "Gaussian rows", names)
    yield from _angle_rows("l2-table", "l2", "Gaussian rows", names)
    if "l1-table-vs-cdist" in names:
        yield _l1_row()
    if "table-peak-memory" in names:
        yield _memory_row()
    if "mixing-step" in names:
        yield _mixing_row()
