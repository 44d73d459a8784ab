"""Promise: the neighbour table equals brute force, for every metric, on the inputs most likely to break it."""

from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ngrpo.errors import UserError
from ngrpo.method import neighbour_kernels as kernels
from ngrpo.method import neighbour_search as searching
from ngrpo.method import neighbours
from ngrpo.method.neighbour_filters import AngleFilter, ManhattanFilter, _pair_sums, exact_values, measure
from ngrpo.method.neighbours import Table, build, changed_rows, excluded_tokens, nearest, refresh

pytestmark = pytest.mark.train
METRICS = ("cosine", "l2", "l1")


def brute_force(E, k, metric, exclude=None):
    """Every distance in float64, one row at a time; sorted by (distance, id)."""
    E = np.asarray(E, dtype=np.float64)
    candidate = (E != 0).any(1)
    if exclude is not None:
        candidate &= ~np.asarray(exclude)
    rows = np.tile(np.arange(len(E))[:, None], (1, k))
    for i in np.flatnonzero(candidate):
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


def rational_neighbours(E, k, metric):
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
    elif name == "all parallel":
        E = torch.randint(1, 5, (V, 1), generator=g).float() * torch.ones(1, d)
    elif name == "all equal":
        E = torch.ones(V, d)
    return E


ADVERSARIAL = ("plain", "duplicates", "zeros", "huge norms", "overflowing", "tight clusters far out")


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("block", [None, 7])
@pytest.mark.parametrize("name", [*ADVERSARIAL, "all parallel", "all equal"])
def test_equals_brute_force_on_adversarial_inputs(name, metric, block):
    E = adversarial(name)
    assert torch.equal(nearest(E, 4, metric, block=block), brute_force(E, 4, metric))


@pytest.mark.parametrize("metric", METRICS)
def test_equals_brute_force_through_the_bfloat16_filter_and_the_second_pass(metric, monkeypatch):
    monkeypatch.setattr(searching, "_fast_bfloat16", lambda: True)
    second_pass = []
    exhaust = searching._exhaust
    monkeypatch.setattr(searching, "_exhaust", lambda *a: second_pass.append(a[1].numel()) or exhaust(*a))
    g = torch.Generator().manual_seed(1)
    E = torch.randint(-50, 51, (4500, 40), generator=g).float()
    E[100:160] = E[100]  # more equals than a row keeps candidates
    E[300:310] = 0
    E[500:520] *= 2.0**40
    expected = brute_force(E, 3, metric)
    assert torch.equal(nearest(E, 3, metric), expected)
    assert sum(second_pass) >= 60
    some = torch.tensor([4499, 100, 300, 515, 100])
    assert torch.equal(nearest(E, 3, metric, queries=some), expected[some])


def test_negative_control_the_filters_alone_are_wrong():
    E = adversarial("tight clusters far out")
    rows = measure(E, None)
    for cheap in (AngleFilter(rows, "l2", torch.bfloat16), AngleFilter(rows, "l2", torch.float32)):
        s = cheap.similarity(cheap.operand(slice(0, 240)), cheap.operand(slice(0, 240))).fill_diagonal_(2)
        assert not torch.equal(s.argsort(dim=1, descending=True)[:, :4], brute_force(E, 4, "l2"))


@pytest.mark.parametrize("name", ADVERSARIAL)
@pytest.mark.parametrize("kind", ["cosine bfloat16", "cosine float32", "l2 bfloat16", "l2 float32", "l1"])
def test_no_value_lies_below_its_filters_bound(name, kind):
    metric, *dtype = kind.split()
    rows = measure(adversarial(name), None)
    cheap = AngleFilter(rows, metric, getattr(torch, dtype[0])) if dtype else ManhattanFilter(rows, metric)
    n = len(rows)
    place = torch.arange(n)
    s = cheap.similarity(cheap.operand(slice(0, n)), cheap.operand(slice(0, n)))
    bound = cheap.lower_bound(s, place, place)
    _, value = exact_values(rows, place.repeat_interleave(n), place.repeat(n), metric)
    assert (bound <= value.view(n, n)).all()


def test_negative_control_without_the_error_terms_the_bound_is_broken():
    rows = measure(adversarial("plain"), None)
    cheap = AngleFilter(rows, "cosine", torch.bfloat16)
    cheap.epsilon = cheap.eta = 0.0
    place = torch.arange(240)
    s = cheap.similarity(cheap.operand(slice(0, 240)), cheap.operand(slice(0, 240)))
    _, value = exact_values(rows, place.repeat_interleave(240), place.repeat(240), "cosine")
    assert not (cheap.lower_bound(s, place, place) <= value.view(240, 240)).all()


@settings(max_examples=60, deadline=None)
@given(data=st.data(), metric=st.sampled_from(METRICS))
def test_equals_rational_arithmetic_ties_included(data, metric):
    V, d = data.draw(st.integers(2, 30)), data.draw(st.integers(1, 4))
    cells = data.draw(st.lists(st.integers(-3, 3), min_size=V * d, max_size=V * d))
    E = torch.tensor(cells).view(V, d).float()
    k = data.draw(st.integers(1, max(1, int((E != 0).any(1).sum()))))
    assert torch.equal(
        nearest(E, k, metric, block=data.draw(st.sampled_from([None, 4]))), rational_neighbours(E, k, metric)
    )


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), metric=st.sampled_from(METRICS))
def test_a_renaming_of_tokens_renames_their_neighbours(seed, metric):
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
def test_excluded_tokens_are_nobodys_neighbours_and_map_to_themselves(metric):
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


def test_torch_and_compiled_operations_agree():
    g = torch.Generator().manual_seed(5)
    n, w = 300, 6
    s, base, slope = torch.randn(90, 120, generator=g), torch.rand(n, generator=g).double(), torch.rand(n).double()
    for once in (True, False):
        who = torch.arange(150, 240)
        sides = []
        for keep in (kernels.keep_smallest, searching._keep_smallest):
            ids, bounds = torch.full((n, w), -1), torch.full((n, w), torch.inf, dtype=torch.float64)
            column_side = (ids[160:280], bounds[160:280]) if once else None
            keep(s, who, 160, base, slope, 0.1, 0.01, (ids[150:240], bounds[150:240]), column_side)
            sides.append((ids, bounds))
        torch.testing.assert_close(sides[0][1], sides[1][1])
        assert torch.equal(sides[0][0], sides[1][0])
    x, y = torch.randn(37, 19, generator=g), torch.randn(37, 19, generator=g)
    order = torch.arange(37)
    for metric in METRICS:
        torch.testing.assert_close(kernels.pair_sums(x, order, y, order, metric), _pair_sums(x, y, metric))
    torch.testing.assert_close(kernels.manhattan(x, y[:31], torch.empty(37, 31)), -torch.cdist(x, y[:31], p=1.0))


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
    for name in ("ids", "margins", "excluded"):
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
    with pytest.raises(UserError, match="no neighbour table"):
        Table.load(tmp_path / "absent.safetensors")
    (tmp_path / "broken.safetensors").write_bytes(b"not a table")
    with pytest.raises(UserError, match="not readable"):
        Table.load(tmp_path / "broken.safetensors")


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("step", [0.0, 1e-5, 1e-2, 1.0])
def test_refresh_equals_a_new_build_and_counts_the_changed_rows(metric, step):
    E = adversarial("zeros")
    table = build(E, 3, metric, vocabulary_size=235)
    new = E * (1 + step * torch.randn(E.shape, generator=torch.Generator().manual_seed(3)))
    rebuilt = build(new, 3, metric, vocabulary_size=235)
    expected = int((rebuilt.ids != table.ids).any(1).sum())
    for previous in (None, E):
        refreshed, changed = refresh(table, new, previous=previous)
        assert torch.equal(refreshed.ids, rebuilt.ids)
        assert refreshed.E_digest == rebuilt.E_digest
        assert (refreshed.margins <= rebuilt.margins + 1e-12).all() or previous is None
        assert changed == expected == changed_rows(table, new, previous=previous)
    assert (expected > 0) == (step >= 1e-2)  # negative control: a large step does change rows


def test_refresh_searches_only_rows_that_may_have_changed(monkeypatch):
    E = adversarial("plain")
    table = build(E, 3, "cosine")
    asked = []
    whole = neighbours._nearest
    monkeypatch.setattr(neighbours, "_nearest", lambda *a: asked.append(a[-1]) or whole(*a))
    changed_rows(table, E * (1 + 1e-5 * torch.randn_like(E)), previous=E)
    assert asked[0].numel() < 40
    with pytest.raises(UserError, match="isn't the matrix"):
        changed_rows(table, E + 1, previous=E + 2)


def test_margins_hold_chained_through_refreshes():
    g = torch.Generator().manual_seed(9)
    E = adversarial("plain")
    table = build(E, 3, "l2")
    for _ in range(6):
        new = E + 2e-3 * torch.randn(E.shape, generator=g)
        table, _ = refresh(table, new, previous=E)
        E = new
        assert torch.equal(table.ids, build(E, 3, "l2").ids)
