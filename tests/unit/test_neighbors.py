"""Promise: the neighbor table equals brute force, for every metric, on the inputs most likely to break it."""

from fractions import Fraction
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ngrpo.errors import UserError
from ngrpo.method.knn import kernels, packed_rows
from ngrpo.method.knn import search as searching
from ngrpo.method.knn.filters import AngleFilter, ManhattanFilter, PackedFilter, lower_bound, measure
from ngrpo.method.neighbor_table import Table, build, excluded_tokens, nearest

pytestmark = pytest.mark.train
METRICS = ("cosine", "l2", "l1")
AVX2 = torch.cpu._is_avx2_supported()
FILTERS = {
    "int8": partial(AngleFilter, dtype=torch.int8),
    "bfloat16": partial(AngleFilter, dtype=torch.bfloat16),
    "float32": partial(AngleFilter, dtype=torch.float32),
    "packed": PackedFilter,
}
NAMES = [*list(FILTERS)[:3], pytest.param("packed", marks=pytest.mark.skipif(not AVX2, reason="needs AVX2"))]


def brute_force(E, k, metric, exclude=None, only=None):
    """Every distance in float64, one row (of `only`) at a time; sorted by (distance, id)."""
    E = np.asarray(E, dtype=np.float64)
    candidate = (E != 0).any(1)
    if exclude is not None:
        candidate &= ~np.asarray(exclude)
    rows = np.tile(np.arange(len(E))[:, None], (1, k))
    for i in np.flatnonzero(candidate) if only is None else only[torch.from_numpy(candidate)[only]].numpy():
        if metric == "cosine":
            g = (E * E[i]).sum(1)
            distance = -g * np.abs(g) / np.maximum((E * E).sum(1), 1e-300)
        elif metric == "l2":
            distance = ((E - E[i]) ** 2).sum(1)
        else:
            distance = np.abs(E - E[i]).sum(1)
        others = np.flatnonzero(candidate & (np.arange(len(E)) != i))
        rows[i, 1:] = others[np.argsort(distance[others], kind="stable")][: k - 1]
    return torch.from_numpy(rows)


def rational_neighbors(E, k, metric):
    """Brute force without any rounding, for rows of whole numbers."""
    E = [[Fraction(int(x)) for x in row] for row in E]

    def distance(x, y):
        if metric == "cosine":
            g = sum(a * b for a, b in zip(x, y, strict=True))
            return -g * abs(g) / sum(b * b for b in y)
        gaps = [abs(a - b) for a, b in zip(x, y, strict=True)]
        return sum(gap * gap for gap in gaps) if metric == "l2" else sum(gaps)

    candidates = [j for j, row in enumerate(E) if any(row)]
    out = []
    for i, x in enumerate(E):
        others = sorted((j for j in candidates if j != i), key=lambda j: (distance(x, E[j]), j))
        out.append([i, *others[: k - 1]] if i in candidates else [i] * k)
    return torch.tensor(out)


def adversarial(name, V=240, d=24):
    """Embedding matrices that break a careless search."""
    g = torch.Generator().manual_seed(7)
    E = torch.randn(V, d, generator=g)
    if name == "duplicates":
        E[40:90] = E[40]
        E[200:230] = E[3]
    elif name == "zeros":
        E[::9] = 0
        E[-20:] = 0
    elif name == "huge norms":
        E[10:60] *= 2.0**100
        E[70:90] *= 2.0**-100
    elif name == "overflowing":
        E *= 2.0**124 / E.abs().max()
    elif name == "tight clusters far out":
        E[:] = 1000 * torch.randn(1, d, generator=g)
        E += 0.1 * torch.randn(V, d, generator=g)
    elif name == "opposite":
        E[V // 2 :] = -E[: V // 2]
        E *= 1 + torch.rand(V, 1, generator=g)
    elif name == "far out one way":
        E[:, 5] += 40
    elif name == "all parallel":
        E = torch.randint(1, 5, (V, 1), generator=g).float() * torch.ones(1, d)
    elif name == "all equal":
        E = torch.ones(V, d)
    return E


ADVERSARIAL = (
    "plain",
    "duplicates",
    "zeros",
    "huge norms",
    "overflowing",
    "tight clusters far out",
    "opposite",
    "far out one way",
)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("block", [None, 50])
@pytest.mark.parametrize("name", [*ADVERSARIAL, "all parallel", "all equal"])
def test_equals_brute_force_on_adversarial_inputs(name, metric, block):
    E = adversarial(name)
    assert torch.equal(nearest(E, 4, metric, block=block), brute_force(E, 4, metric))


def large_with_traps():
    """Large enough for the narrow filters: equals, zeros, huge norms; and some rows to compare."""
    g = torch.Generator().manual_seed(1)
    E = torch.randint(-50, 51, (4500, 40), generator=g).float()
    E[100:160] = E[100]
    E[300:310] = 0
    E[500:520] *= 2.0**40
    return E, torch.cat(
        [torch.arange(90, 170), torch.arange(295, 320), torch.arange(500, 525), torch.arange(4300, 4500)]
    )


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("metric", ["cosine", "l2"])
def test_equals_brute_force_through_every_filter(metric, name, monkeypatch):
    used = []

    def made(rows, metric):
        used.append(FILTERS[name](rows, metric))
        return used[-1]

    monkeypatch.setattr(searching, "narrow_filters", lambda: [(made, 1.0)])
    monkeypatch.setattr(searching, "_pass", lambda *a, run=searching._pass: used.append(a[0]) or run(*a))
    E, some = large_with_traps()
    expected = brute_force(E, 3, metric, only=some)
    assert torch.equal(nearest(E, 3, metric)[some], expected[some])
    assert used[-1] is used[0]  # the sample, then all, by this filter
    again = some[torch.tensor([3, 0, 3, 99])]
    assert torch.equal(nearest(E, 3, metric, queries=again), expected[again])


def test_the_filter_that_would_measure_too_much_is_not_chosen():
    E = 1000 + torch.randn(4200, 16, generator=torch.Generator().manual_seed(2))
    some = torch.arange(0, 4200, 60)
    rows = measure(E, None)
    assert searching._choose_filter(rows, 2, "l2", searching.block_sizes(16, 1 << 28, None)).dtype == torch.float32
    assert torch.equal(nearest(E, 3, "l2", queries=some), brute_force(E, 3, "l2", only=some)[some])


def test_negative_control_the_filters_alone_are_wrong():
    E = adversarial("tight clusters far out")
    rows = measure(E, None)
    for name in FILTERS if AVX2 else list(FILTERS)[:3]:
        cheap = FILTERS[name](rows, "l2")
        s = cheap.similarity(cheap.operand(slice(0, 240)), cheap.operand(slice(0, 240))).float()
        s = s / (cheap.steps[:, None] * cheap.steps)
        s.fill_diagonal_(2)
        assert not torch.equal(s.argsort(dim=1, descending=True)[:, :4], brute_force(E, 4, "l2"))


def all_values(rows, metric):
    """Every pair's value in float64 (n, n), in the unit of the filters' bounds."""
    x = rows.block(slice(0, len(rows))).double()
    if metric == "cosine":
        unit = x / x.norm(dim=1, keepdim=True)
        return -(unit @ unit.T)
    gaps = x[:, None] - x
    return gaps.square().sum(-1) if metric == "l2" else gaps.abs().sum(-1)


@pytest.mark.parametrize("name", ADVERSARIAL)
@pytest.mark.parametrize("metric", ["cosine", "l2"])
@pytest.mark.parametrize("by", NAMES)
def test_no_value_lies_below_its_filters_bound(name, metric, by):
    rows = measure(adversarial(name), None)
    assert bound_holds(FILTERS[by](rows, metric), rows, metric)


@pytest.mark.parametrize("name", ADVERSARIAL)
def test_no_l1_distance_lies_below_its_filters_bound(name):
    rows = measure(adversarial(name), None)
    assert bound_holds(ManhattanFilter(rows, "l1"), rows, "l1")


def bound_holds(cheap, rows, metric):
    every = slice(0, len(rows))
    place = torch.arange(len(rows))
    low = lower_bound(cheap.similarity(cheap.operand(every), cheap.operand(every)), cheap.bound, place, place)
    return bool((low <= all_values(rows, metric) + (1e-13 if metric == "cosine" else 0)).all())


@pytest.mark.parametrize("name", NAMES)
def test_negative_control_without_the_error_terms_the_bound_is_broken(name):
    rows = measure(adversarial("plain"), None)
    cheap = FILTERS[name](rows, "cosine")
    cheap.epsilon = cheap.eta = 0.0
    cheap.base = torch.zeros_like(cheap.base)
    assert not bound_holds(cheap, rows, "cosine")


@settings(max_examples=60)
@given(data=st.data(), metric=st.sampled_from(METRICS))
def test_equals_rational_arithmetic_ties_included(data, metric):
    V, d = data.draw(st.integers(2, 30)), data.draw(st.integers(1, 4))
    cells = data.draw(st.lists(st.integers(-3, 3), min_size=V * d, max_size=V * d))
    E = torch.tensor(cells).view(V, d).float()
    k = data.draw(st.integers(1, max(1, int((E != 0).any(1).sum()))))
    assert torch.equal(
        nearest(E, k, metric, block=data.draw(st.sampled_from([None, 4]))), rational_neighbors(E, k, metric)
    )


@settings(max_examples=30)
@given(seed=st.integers(0, 10**6), metric=st.sampled_from(METRICS))
def test_a_renaming_of_tokens_renames_their_neighbors(seed, metric):
    g = torch.Generator().manual_seed(seed)
    E = torch.randn(50, 6, generator=g)
    new_name = torch.randperm(50, generator=g)
    renamed = torch.empty_like(E)
    renamed[new_name] = E
    assert torch.equal(nearest(renamed, 4, metric)[new_name], new_name[nearest(E, 4, metric)])


def test_ties_go_to_the_smaller_id():
    E = torch.tensor([[0.0, 1], [1, 0], [-1, 0], [1, 0], [0, -1], [1, 0]])
    assert nearest(E, 4, "l2")[5].tolist() == [5, 1, 3, 0]
    assert nearest(E, 3, "cosine")[0].tolist() == [0, 1, 2]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("metric", METRICS)
def test_half_precision_matrices_are_taken_at_their_exact_values(dtype, metric):
    E = adversarial("duplicates").to(dtype)
    assert torch.equal(nearest(E, 3, metric), brute_force(E.float(), 3, metric))


@pytest.mark.parametrize("metric", METRICS)
def test_excluded_tokens_are_nobodys_neighbors_and_map_to_themselves(metric):
    E = adversarial("plain")
    exclude = torch.zeros(240, dtype=torch.bool)
    exclude[nearest(E, 2, metric)[:40, 1]] = True
    table = nearest(E, 3, metric, exclude=exclude)
    assert torch.equal(table, brute_force(E, 3, metric, exclude))
    assert torch.equal(table[exclude], torch.nonzero(exclude).expand(-1, 3))
    assert not exclude[table[~exclude]].any()
    assert exclude[nearest(E, 3, metric)].any()  # negative control: they would have been


def test_non_contiguous_matrices_and_one_column_tables():
    E = adversarial("plain")
    assert torch.equal(nearest(E.T.contiguous().T, 3, "l1"), nearest(E, 3, "l1"))
    assert torch.equal(nearest(E, 1, "cosine"), torch.arange(240)[:, None])


def test_the_number_of_threads_changes_nothing():
    E = torch.randn(1500, 20, generator=torch.Generator().manual_seed(0))
    before, tables = torch.get_num_threads(), []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        tables.append(nearest(E, 3, "l2", block=600))
    torch.set_num_threads(before)
    assert torch.equal(tables[0], tables[1])
    assert torch.equal(tables[0], tables[2])


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("name", ["plain", "duplicates", "huge norms", "tight clusters far out"])
def test_the_operations_for_other_devices_find_the_same(name, metric, monkeypatch):
    E = adversarial(name)
    some = torch.tensor([239, 0, 45, 45])
    compiled = nearest(E, 4, metric, block=50), nearest(E, 4, metric, queries=some)
    monkeypatch.setattr(kernels, "offer", searching.offer_with_torch)
    monkeypatch.setattr(kernels, "manhattan", lambda x, y, out: -torch.cdist(x, y, p=1.0))
    assert torch.equal(nearest(E, 4, metric, block=50), compiled[0])
    assert torch.equal(nearest(E, 4, metric, queries=some), compiled[1])


@pytest.mark.skipif(not AVX2, reason="needs AVX2")
@pytest.mark.parametrize(("a", "b", "d"), [(1, 1, 1), (4, 3, 128), (7, 131, 129), (66, 260, 1100)])
def test_products_of_packed_rows_are_exact_where_sums_are_largest(a, b, d):
    g = torch.Generator().manual_seed(a)
    signs = torch.randint(0, 2, (a + b, d), generator=g) * 2.0 - 1
    signs[-1] = signs[0]
    norm, nothing = signs.double().norm(dim=1), torch.zeros(d, dtype=torch.float64)
    left, right = (
        packed_rows.pack(rows, *n, nothing) for rows, n in ((signs[:a], (norm[:a],)), (signs[a:], (norm[a:],)))
    )
    q = round(float(left[1][0, 1] / d**0.5))  # what every entry is, but for its sign
    out = torch.empty(a + -a % 4, b, dtype=torch.int32)
    s = packed_rows.products(left[0], right[0], d, out)
    assert torch.equal(s.double(), q * q * (signs[:a].double() @ signs[a:].double().T))
    assert s[0, -1] == q * q * d
    right[0][:, :32] = 0  # negative control: without their starts sums are off
    assert not torch.equal(packed_rows.products(left[0], right[0], d, out.clone()), s)


@pytest.mark.skipif(not AVX2, reason="needs AVX2")
def test_sums_of_packed_rows_that_lie_in_one_lane_do_not_overflow():
    E = torch.zeros(8, 1024)
    E[:, ::32] = 1 + 0.001 * torch.arange(8.0)[:, None]  # all entries meet in one 16-bit sum
    q, _ = packed_rows.pack(E, E.double().norm(dim=1), torch.zeros(1024, dtype=torch.float64))
    s = packed_rows.products(q, q, 1024, torch.empty(8, 8, dtype=torch.int32))
    whole = q[:, 32:].double()
    assert torch.equal(s.double(), whole @ whole.T)
    q[:, 32::32] = 63  # negative control: entries as large as others may be do overflow
    assert not torch.equal(
        packed_rows.products(q, q, 1024, s.clone()).double(), q[:, 32:].double() @ q[:, 32:].double().T
    )


def test_sums_of_absolute_differences_for_every_remainder_of_the_register_blocks():
    g = torch.Generator().manual_seed(5)
    for a, b, d in ((1, 1, 1), (2, 4, 16), (37, 31, 19), (40, 5, 3)):
        x, y = torch.randn(a, d, generator=g), torch.randn(b, d, generator=g)
        torch.testing.assert_close(kernels.manhattan(x, y, torch.empty(a, b)), -torch.cdist(x, y, p=1.0))


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_a_row_that_is_not_finite_is_named(value):
    E = adversarial("plain")
    E[17, 3] = value
    with pytest.raises(UserError, match="row 17"):
        nearest(E, 3, "cosine")


def test_impossible_requests_are_refused():
    E = adversarial("zeros", V=12)
    with pytest.raises(UserError, match=r"only \d+ of 12"):
        nearest(E, 12, "l2")
    with pytest.raises(UserError, match="did you mean 'cosine'"):
        nearest(E, 2, "cosin")
    with pytest.raises(UserError, match="k is 0"):
        nearest(E, 0, "l2")
    with pytest.raises(UserError, match="tokenizer"):
        excluded_tokens(10, 11)
    with pytest.raises(UserError, match="special tokens 'drop'"):
        excluded_tokens(10, 10, special_tokens="drop")


def test_padding_rows_and_special_tokens():
    keep = build(adversarial("plain"), 3, "l2", vocabulary_size=200, special_ids=[5, 9])
    drop = build(adversarial("plain"), 3, "l2", vocabulary_size=200, special_ids=[5, 9], special_tokens="exclude")
    assert keep.excluded.nonzero().flatten().tolist() == list(range(200, 240))
    assert keep.ids[5].unique().numel() == 3
    assert drop.ids[5].tolist() == [5, 5, 5]
    assert not drop.excluded[drop.ids[~drop.excluded].long()].any()


def test_a_table_survives_its_file(tmp_path):
    table = build(adversarial("zeros"), 3, "l1", vocabulary_size=230)
    table.save(tmp_path / "t.safetensors")
    again = Table.load(tmp_path / "t.safetensors")
    for name in ("ids", "excluded"):
        assert torch.equal(getattr(table, name), getattr(again, name))
    for name in ("metric", "special_tokens", "vocabulary_size", "E_digest", "k"):
        assert getattr(table, name) == getattr(again, name)
    first = (tmp_path / "t.safetensors").read_bytes()
    again.save(tmp_path / "t.safetensors")
    assert (tmp_path / "t.safetensors").read_bytes() == first
    assert [p.name for p in tmp_path.iterdir()] == ["t.safetensors"]


def test_a_table_for_something_else_is_refused(tmp_path):
    table = build(adversarial("plain"), 3, "cosine")
    table.check(240, 3, "cosine")
    with pytest.raises(UserError, match="vocabulary and table don't match"):
        table.check(241, 3, "cosine")
    with pytest.raises(UserError, match="k is 3, but 2"):
        table.check(240, 2, "cosine")
    with pytest.raises(UserError, match="metric is cosine, but l2"):
        table.check(240, 3, "l2")
    with pytest.raises(UserError, match="no neighbor table"):
        Table.load(tmp_path / "absent.safetensors")
    (tmp_path / "broken.safetensors").write_bytes(b"not a table")
    with pytest.raises(UserError, match="not readable"):
        Table.load(tmp_path / "broken.safetensors")
