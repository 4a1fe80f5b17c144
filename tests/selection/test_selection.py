import itertools
import math
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment
from selection_cases import instance, twins

from qpm_lib import selection
from qpm_lib.core.config import SelectionConfig
from qpm_lib.selection.constants import threshold
from qpm_lib.selection.problem import make_problem, problem_objective
from qpm_lib.selection.result import Selection
from qpm_lib.selection.stages import heuristic
from qpm_lib.selection.stages.assignment import assign, best_subsets, relaxed_objective

# -- pieces


@settings(max_examples=150, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_assignment_equals_enumeration(seed):
    rng = np.random.default_rng(seed)
    n = int(rng.integers(2, 8))
    k = int(rng.integers(1, n + 1))
    c = int(rng.integers(1, min(20, math.comb(n, k)) + 1))
    kinds = int(rng.integers(1, 4))  # classes of a kind are near-copies, so many want the same set
    a = rng.normal(size=(n, kinds))[:, rng.integers(0, kinds, c)] + rng.choice([0, 0.05, 0.3, 2]) * rng.normal(
        size=(n, c)
    )
    problem = make_problem(a, None, n_features=n, n_per_class=k)
    result = assign(problem, np.arange(n))
    value = problem_objective(problem, np.arange(n), result.matrix)
    subsets = list(itertools.combinations(range(n), k))
    worth = np.array([[problem.value[list(s), j].sum() for s in subsets] for j in range(c)])
    rows, columns = linear_sum_assignment(-worth)
    assert value == pytest.approx(worth[rows, columns].sum(), abs=1e-9)
    assert relaxed_objective(problem, np.arange(n)) - result.loss == pytest.approx(value, abs=1e-9)
    assert len({tuple(row) for row in result.matrix}) == c


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 10**6), k=st.integers(1, 4))
def test_best_subsets_are_the_best(seed, k):
    values = np.random.default_rng(seed).normal(size=6)
    expected = sorted(-values[list(s)].sum() for s in itertools.combinations(range(6), k))[:5]
    found = list(itertools.islice(best_subsets(values, k), 5))
    np.testing.assert_allclose([loss + expected[0] for loss, _ in found], expected[: len(found)], atol=1e-9)
    assert all(-values[list(s)].sum() == pytest.approx(loss + expected[0]) for loss, s in found)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_swap_values_are_differences_of_the_objective(seed):
    a, r, options = instance(seed, f=7, n=4)
    problem = make_problem(a, r, **options)
    features = np.sort(np.random.default_rng(seed).choice(7, 4, replace=False))
    gains = heuristic.swap_gains(problem, features)
    before = relaxed_objective(problem, features)
    for inn, out in itertools.product(set(range(7)) - set(features.tolist()), range(4)):
        swapped = features.copy()
        swapped[out] = inn
        assert gains[inn, out] == pytest.approx(relaxed_objective(problem, swapped) - before, abs=1e-8)


def test_heuristic_is_close_on_toy_size():
    a = twins(seed=5)
    r = selection.redundancy(a, 20)
    found = selection.solve(a, r, n_features=20, n_per_class=4, gap=0.0)
    quick = heuristic.search(make_problem(a, r, n_features=20, n_per_class=4))
    assert found.objective >= quick.objective >= 0.97 * found.objective


# -- steering


def test_shares_of_maps_near_a_part_and_near_the_peak():
    maps = np.zeros((2, 3, 6, 6))
    maps[:, 0, 2, 3] = 4.0  # all on row 2, column 3
    maps[:, 1] = 1.0  # everywhere
    maps[0, 2, 5, 5] = -1.0  # never fires
    cells, seen = np.array([[3, 2], [0, 0]]), np.array([True, False])
    np.testing.assert_allclose(selection.part_share(maps, cells, seen), [1.0, 9 / 36, 0.0])
    np.testing.assert_allclose(selection.part_share(maps, cells, ~seen), [0.0, 4 / 36, 0.0])
    np.testing.assert_allclose(selection.locality(maps), [1.0, 4 / 36, 0.0])
    with pytest.raises(ValueError, match="none of 2 images shows the part"):
        selection.part_share(maps, cells, seen & False)


def test_a_wish_moves_the_selection_and_its_price_is_visible():
    a = twins(seed=8)
    r = selection.redundancy(a, 20)
    options = {"n_features": 20, "n_per_class": 4, "gap": 0.0}
    free = selection.solve(a, r, **options)
    score = np.random.default_rng(0).random(len(a))
    steered = selection.solve(a, r, **options, bias=20 * score)
    assert score[steered.features].mean() > score[free.features].mean() + 0.1
    assert selection.objective(a, r, steered.features, steered.assignment) < free.objective
    wanted = np.setdiff1d(np.arange(len(a)), free.features)[:2].tolist()
    forced = selection.solve(a, r, **options, required=wanted, forbidden=free.features[:2])
    assert set(wanted) <= set(forced.features.tolist())
    assert forced.objective < free.objective


def test_the_setting_pays_the_best_feature_its_percent_and_zero_changes_nothing():
    a, keeps = twins(seed=8), np.random.default_rng(0).random(len(twins(seed=8)))
    asked = SelectionConfig(n_features=20, n_per_class=4, gap=0.0)
    free = selection.solve_as_set(a, asked, keeps=keeps)
    bias = selection.wish(keeps, free.objective, percent=3.0)
    np.testing.assert_allclose(np.ptp(bias), 0.03 * free.objective)
    steered = selection.solve_as_set(a, replace(asked, locality=3.0), keeps=keeps)
    r = selection.redundancy(a, 20)
    plainly = [selection.objective(a, r, s.features, s.assignment) for s in (free, steered)]
    np.testing.assert_allclose(steered.objective, plainly[1] + bias[steered.features].sum())
    assert keeps[steered.features].mean() > keeps[free.features].mean()
    assert plainly[1] < plainly[0]
    np.testing.assert_array_equal(selection.solve_as_set(a, replace(asked, locality=3.0)).features, free.features)
    assert not selection.wish(np.ones(80), 100.0, percent=3.0).any()


# -- constants


def test_relevance_is_correlation():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(60, 5)) + np.arange(60)[:, None] % 3, np.arange(60) % 3
    a = selection.relevance(x, y)
    reference = np.array([[np.corrcoef(x[:, f], y == c)[0, 1] for c in range(3)] for f in range(5)])
    np.testing.assert_allclose(a, reference / np.abs(reference).max(), atol=1e-12)
    np.testing.assert_allclose(a, selection.relevance(x * 1e-3 + 7, y), atol=1e-9)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda x, y: (np.where(x > 1, np.nan, x), y), "not finite"),
        (lambda x, y: (np.where(x > 1, np.inf, x), y), "not finite"),
        (lambda x, y: (np.c_[x, np.ones(len(x))], y), "1 features are constant.*first: 3"),
        (lambda x, y: (x, np.where(y == 1, 2, y)), "class 1 has no samples"),
        (lambda x, y: (x, y * 0), "two classes"),
    ],
)
def test_bad_training_features(change, words):
    x, y = np.random.default_rng(0).normal(size=(30, 3)), np.arange(30) % 3
    with pytest.raises(ValueError, match=words):
        selection.relevance(*change(x, y))


def test_constant_features_can_be_given_no_relevance():
    x, y = np.random.default_rng(0).normal(size=(30, 3)), np.arange(30) % 3
    x[:, 1] = 4.0
    a = selection.relevance(x, y, constant="zero")
    assert (a[1] == 0).all()
    assert (a[0] != 0).all()
    assert np.isfinite(selection.redundancy(a, 2)).all()


@pytest.mark.parametrize("rule", ["as_coded", "as_written", 0.1])
def test_dead_features_change_no_penalty(rule):
    a = np.random.default_rng(1).normal(size=(40, 6))
    dead = np.zeros((50, 6))
    dead[5:45] = a
    r = selection.redundancy(dead, 10, rule)
    np.testing.assert_array_equal(r[5:45, 5:45], selection.redundancy(a, 10, rule))
    assert np.count_nonzero(r) == np.count_nonzero(r[5:45, 5:45]) > 0
    assert selection.redundancy(np.zeros((4, 3)), 2, rule).sum() == 0


def test_redundancy_rules():
    a = twins(f=60, c=12)
    r = selection.similarity(a)
    matrices = {rule: selection.redundancy(a, 10, rule) for rule in ("as_coded", "as_written", "none", 0.1, 1.0)}
    for m in matrices.values():
        np.testing.assert_array_equal(m, m.T)
        assert (np.diagonal(m) == 0).all()
        assert ((m >= 0) & (m <= 1)).all()
    assert not matrices["none"].any()
    t = threshold(r, 10)
    np.testing.assert_array_equal(matrices["as_written"] > 0, (r >= t) & ~np.eye(60, dtype=bool))
    np.testing.assert_array_equal(matrices["as_coded"] > 0, (r >= 2 * t) & ~np.eye(60, dtype=bool))
    assert (np.triu(matrices[0.1]) > 0).sum() == round(0.1 * 60 * 59 / 2)
    scaled = (r - r[r != 0].min()) / (r - r[r != 0].min()).max()
    np.testing.assert_allclose(matrices["as_written"][r >= t], scaled[r >= t])


def test_threshold_leaves_a_set_of_the_wanted_size():
    """Exhaustively on a small matrix: below the threshold there is such a set, and not much lower."""
    r = selection.similarity(np.random.default_rng(1).normal(size=(10, 4)))
    t = threshold(r, 4)

    def possible(limit):
        return any(
            all(r[i, j] < limit for i, j in itertools.combinations(s, 2)) for s in itertools.combinations(range(10), 4)
        )

    assert possible(t)
    values = np.unique(r[np.triu_indices(10, 1)])
    smallest = next(v for v in values if possible(v))
    assert np.searchsorted(values, t) - np.searchsorted(values, smallest) <= 4


def test_bad_rules_and_sizes():
    a = twins()
    with pytest.raises(ValueError, match=r"'often'.*as_coded"):
        selection.redundancy(a, 5, "often")
    with pytest.raises(ValueError, match="1.5"):
        selection.redundancy(a, 5, 1.5)
    with pytest.raises(ValueError, match="=200.*=96"):
        selection.redundancy(a, 200)
    with pytest.raises(ValueError, match="=0.*=96"):
        selection.redundancy(a, 0)
    with pytest.raises(ValueError, match="relevance holds 1536 values"):
        selection.redundancy(a * np.nan, 5)
    with pytest.raises(ValueError, match="'foo'.*error or zero"):
        selection.relevance.__wrapped__(a, np.arange(len(a)) % 2, constant="foo")


@pytest.mark.parametrize(
    ("features", "words"), [([0, 0], "names one of them twice"), ([0, 8], "numbered 0 to 7"), ([-1, 2], "holds -1")]
)
def test_only_features_that_exist_have_an_objective(features, words):
    with pytest.raises(ValueError, match=words):
        selection.objective(np.ones((8, 4)), None, np.array(features), np.ones((4, 2), bool))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"n_features": 9}, "n_features .=9.*=8"),
        ({"n_per_class": 6}, "n_per_class .=6.*n_features .=5"),
        ({"n_features": 2, "n_per_class": 2}, "4 classes.*only 1; raise n_features"),
        ({"relevance": np.nan}, "relevance holds 32 values"),
        ({"relevance": 1e9}, "relevance holds .*beyond 1e.06"),
        ({"redundancy": np.triu(np.ones((8, 8)), 1)}, "not symmetric"),
        ({"redundancy": -np.ones((8, 8)) + np.eye(8)}, "non-negative"),
        ({"redundancy": np.ones((8, 8))}, "zero diagonal"),
        ({"bias": np.full(8, np.inf)}, "bias holds 8 values"),
        ({"time_limit": 0.0}, "time_limit"),
        ({"gap": -1.0}, "gap"),
        ({"seed": -1}, "seed .=-1"),
    ],
)
def test_bad_problems_are_refused_before_solving(change, words):
    a = np.random.default_rng(0).normal(size=(8, 4))
    options = {"n_features": 5, "n_per_class": 2, **change}
    scale = options.pop("relevance", 1.0)
    with pytest.raises(ValueError, match=words):
        selection.solve(a * scale, options.pop("redundancy", None), **options)


def test_shapes_that_do_not_fit_are_named_without_the_type_checker_too():
    a, options = np.random.default_rng(0).normal(size=(8, 4)), {"n_features": 5, "n_per_class": 2}
    with pytest.raises(ValueError, match=r"redundancy is \(7, 7\) for 8"):
        make_problem.__wrapped__(a, np.zeros((7, 7)), **options)
    with pytest.raises(ValueError, match=r"bias is \(3,\) for 8"):
        make_problem.__wrapped__(a, None, **options, bias=np.zeros(3))
    with pytest.raises(ValueError, match="7 feature vectors but 8 labels"):
        selection.relevance.__wrapped__(a[1:], np.arange(8) % 2)


def test_selections_are_kept_as_json(tmp_path):
    a = twins(f=12, c=4)
    found = selection.solve(a, None, n_features=6, n_per_class=2)
    found.save(tmp_path / "s.json", made_by="x")
    loaded = Selection.load(tmp_path / "s.json")
    np.testing.assert_array_equal(loaded.features, found.features)
    np.testing.assert_array_equal(loaded.assignment, found.assignment)
    assert (loaded.objective, loaded.status) == (found.objective, found.status)
    with pytest.raises(ValueError, match="run chapter 03"):
        Selection.load(tmp_path / "none.json")


def test_solvers_write_nothing():
    """Their banners would stand in the progress lines of a run; written in C, they pass by `sys.stdout`."""
    code = (
        "import numpy as np; from qpm_lib import selection; a = np.random.default_rng(0).random((40, 8)); "
        "r = selection.redundancy(a, 10); selection.solve(a, r, n_features=10, n_per_class=3, gap=0.0); "
        "selection.solve_plain(a, r, n_features=10, n_per_class=3, time_limit=2); "
        "selection.solve_readable(a, None, n_features=10, n_per_class=3); "
        "from qpm_lib.selection.stages.local import local_cut; e = np.ones((3, 3)) - np.eye(3); "
        "local_cut(np.full(3, 0.5), 0 * e, e)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == ""


def test_a_search_can_begin_with_a_selection():
    """What is handed over is never lost, also where nothing is searched; what is none is refused."""
    a = selection.simulated_relevance(40, 12, seed=3)
    options = {"n_features": 8, "n_per_class": 3, "forbidden": [0, 5]}
    best = selection.solve(a, None, **options, gap=0.0)
    seen = []
    again = selection.solve(a, None, **options, gap=0.0, start=best.features, on_progress=seen.append)
    assert seen[0].objective == pytest.approx(best.objective)
    np.testing.assert_array_equal(again.features, best.features)
    worse = selection.solve(a, None, **options, gap=0.0, start=range(10, 18))
    assert worse.objective == pytest.approx(best.objective)
    for start in (range(7), [0, *range(10, 17)], [1] * 8, range(35, 43)):
        with pytest.raises(ValueError, match=r"start .* must be 8 different features of 0 to 39"):
            selection.solve(a, None, **options, start=start)
