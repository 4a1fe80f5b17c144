"""The solver's promises: exact on everything that can be enumerated, bounds that hold, wishes that are kept,
searches that can end early.
"""

import itertools
import os
import signal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from selection_cases import exhaustive, instance, twins, wishes

from qpm_lib import selection
from qpm_lib.selection.problem import make_problem
from qpm_lib.selection.stages import class_sets, cuts, heuristic, sharing, weaving
from qpm_lib.selection.stages.assignment import assign
from qpm_lib.selection.stages.bounds import root_bound
from qpm_lib.selection.stages.local import local_cut, subset_values
from qpm_lib.selection.stages.tree import split_bound


def check(a, r, found, options, best):
    assert found.objective == pytest.approx(best, abs=1e-6)
    assert found.status == "optimal"
    assert found.bound >= best - 1e-6
    assert selection.objective(a, r, found.features, found.assignment, bias=options["bias"]) == pytest.approx(
        found.objective
    )
    assert (found.assignment.sum(1) == options["n_per_class"]).all()
    assert len({tuple(row) for row in found.assignment}) == a.shape[1]
    assert list(found.features) == sorted(set(found.features.tolist()))


@pytest.mark.parametrize("block", range(10))
def test_solve_equals_exhaustive_search(block):
    for seed in range(block * 26, block * 26 + 26):
        a, r, options = instance(seed)
        check(a, r, selection.solve(a, r, **options, gap=0.0), options, exhaustive(a, r, **options))


@pytest.mark.parametrize("block", range(10))
def test_solve_with_wishes_equals_exhaustive_search(block):
    for seed in range(1000 + block * 26, 1000 + block * 26 + 26):
        a, r, options = instance(seed)
        wanted = wishes(seed, *a.shape, options["n_features"], options["n_per_class"])
        best = exhaustive(a, r, **options, **wanted)
        found = selection.solve(a, r, **options, **wanted, gap=0.0)
        check(a, r, found, options, best)
        assert set(wanted["required"]) <= set(found.features.tolist())
        assert not set(wanted["forbidden"]) & set(found.features.tolist())
        pairs, w = wanted["pair_constraints"], found.assignment
        alike = sum((w[c] & w[d]).sum() == options["n_per_class"] - 1 for c, d in pairs)
        assert alike >= (len(pairs) if wanted["n_pairs"] is None else wanted["n_pairs"])


@pytest.mark.parametrize("seed", range(200, 216))
def test_the_readable_model_has_the_same_optimum(seed):
    a, r, options = instance(seed)
    wanted = wishes(seed, *a.shape, options["n_features"], options["n_per_class"]) if seed % 2 else {}
    found = selection.solve_readable(a, r, **options, **wanted)
    assert found.objective == pytest.approx(exhaustive(a, r, **options, **wanted), abs=1e-4)
    assert found.bound >= found.objective
    assert len({tuple(row) for row in found.assignment}) == a.shape[1]


@pytest.mark.parametrize("seed", range(300, 330))
def test_splitting_equals_exhaustive_search(seed):
    """The stage for wide gaps, made to do all the work: without cuts to begin with and without SCIP."""
    a, r, options = instance(seed)
    wanted = wishes(seed, *a.shape, options["n_features"], options["n_per_class"]) if seed % 2 else {}
    problem = make_problem(a, r, **options, **wanted)
    allowed = np.setdiff1d(np.arange(problem.n_candidates), problem.forbidden)
    problem, seen = problem.restrict(allowed), []
    start = heuristic.evaluate(problem, heuristic.greedy(problem))
    split = split_bound(
        problem,
        start,
        cuts=[],
        bound=1e9,
        gap=0.0,
        has_time=lambda: True,
        on_progress=lambda _, bound: seen.append(bound),
    )
    best = exhaustive(a, r, **options, **wanted)
    assert split.value == pytest.approx(best, abs=1e-5)
    assert split.candidate.objective == pytest.approx(best, abs=1e-6)
    assert all(bound >= best - 1e-6 for bound in seen)


def test_wide_gaps_are_split_and_the_answer_is_the_same(monkeypatch):
    a = twins(f=64, c=16, seed=2)
    r = selection.redundancy(a, 16, 0.3)
    options = {"n_features": 16, "n_per_class": 4, "gap": 0.0, "time_limit": 120}
    expected, seen = selection.solve(a, r, **options), []
    monkeypatch.setattr("qpm_lib.selection.solver._SCIP_WORK", -1.0)
    monkeypatch.setattr("qpm_lib.selection.stages.bounds._STALL_SHARE", 10.0)  # little work for the cutting planes
    found = selection.solve(a, r, **options, on_progress=seen.append)
    assert "splitting" in {p.stage for p in seen}
    assert found.objective == pytest.approx(expected.objective, abs=1e-6)
    assert found.status == expected.status == "optimal"


def test_plain_forms_agree_where_they_can_finish():
    a = selection.simulated_relevance(18, 4, seed=1)
    r = selection.redundancy(a, 6)
    options = {"n_features": 6, "n_per_class": 2}
    forms = [selection.solve_plain(a, r, **options, form=form) for form in ("bilinear", "compact")]
    ours = selection.solve(a, r, **options, gap=0.0)
    assert forms[0].objective == pytest.approx(forms[1].objective, rel=1e-5)
    assert forms[0].gap <= 1e-6
    assert ours.objective <= forms[0].objective + 1e-4  # classes may coincide there
    np.testing.assert_array_equal(a, selection.simulated_relevance(18, 4, seed=1))


def test_the_readable_model_refuses_what_it_cannot_do():
    with pytest.raises(ValueError, match=r"use qpm_lib\.selection\.solve"):
        selection.solve_readable(np.random.default_rng(0).normal(size=(100, 30)), None, n_features=10, n_per_class=3)


@pytest.mark.parametrize("rule", ["as_coded", "as_written", "none"])
def test_toy_size_is_proven_optimal(rule):
    a = twins()
    found = selection.solve(a, selection.redundancy(a, 20, rule), n_features=20, n_per_class=4, gap=0.0, time_limit=120)
    assert found.status == "optimal"
    assert found.gap <= 1e-6


@pytest.mark.parametrize("seed", [0, 1])
def test_an_independent_solver_finds_nothing_above_the_bound(seed):
    """HiGHS on the plain linearised programme (class weights as variables, sets may be alike):
    its optimum bounds ours from above.
    """
    from scipy.optimize import Bounds, LinearConstraint, milp
    from scipy.sparse import lil_matrix

    a = twins(f=28, c=10, seed=seed)
    n, k = 9, 3
    r = selection.redundancy(a, n, 0.15)
    problem = make_problem(a, r, n_features=n, n_per_class=k)
    f, c = a.shape
    pairs = np.argwhere(np.triu(r, 1) > 0)
    total = f + f * c + len(pairs)
    rows = lil_matrix((1 + c + f * c + len(pairs), total))
    low, high = np.full(rows.shape[0], -np.inf), np.zeros(rows.shape[0])
    rows[0, :f], low[0], high[0] = 1, n, n
    for j in range(c):
        rows[1 + j, f + j * f : f + (j + 1) * f], low[1 + j], high[1 + j] = 1, k, k
        for i in range(f):
            rows[1 + c + j * f + i, [f + j * f + i, i]] = [1, -1]
    for p, (i, j) in enumerate(pairs):
        rows[1 + c + f * c + p, [i, j, f + f * c + p]], high[1 + c + f * c + p] = [1, 1, -1], 1
    cost = -np.concatenate([np.zeros(f), problem.value.T.ravel(), -r[tuple(pairs.T)]])
    binary = np.concatenate([np.ones(f), np.zeros(total - f)])
    other = milp(cost, integrality=binary, bounds=Bounds(0, 1), constraints=LinearConstraint(rows.tocsr(), low, high))
    found = selection.solve(a, r, n_features=n, n_per_class=k, gap=0.0)
    root = root_bound(problem, target=0.0, time_limit=60)
    assert other.status == 0
    assert found.status == "optimal"
    assert found.objective <= -other.fun + 1e-6
    assert root.value >= found.objective - 1e-6
    without_pairs = selection.solve(a, None, n_features=n, n_per_class=k, gap=0.0)
    assert without_pairs.objective >= found.objective


def test_same_seed_same_answer_and_inputs_unchanged():
    a = twins(seed=1)
    r = selection.redundancy(a, 16)
    copies = a.copy(), r.copy()
    one, two = (selection.solve(a, r, n_features=16, n_per_class=3, seed=4) for _ in range(2))
    np.testing.assert_array_equal(one.features, two.features)
    np.testing.assert_array_equal(one.assignment, two.assignment)
    assert (one.objective, one.bound) == (two.objective, two.bound)
    np.testing.assert_array_equal(a, copies[0])
    np.testing.assert_array_equal(r, copies[1])


# -- ends


def test_a_short_time_limit_returns_the_best_selection_with_its_gap():
    a = twins(f=200, c=40, seed=2)
    r = selection.redundancy(a, 40, 0.3)
    found = selection.solve(a, r, n_features=40, n_per_class=5, gap=0.0, time_limit=0.5)
    assert found.status == "time_limit"
    assert found.bound > found.objective
    assert found.gap == pytest.approx((found.bound - found.objective) / abs(found.objective))
    assert len({tuple(row) for row in found.assignment}) == 40


def test_a_wanted_gap_ends_the_search():
    a = twins(seed=3)
    found = selection.solve(a, selection.redundancy(a, 20, 0.2), n_features=20, n_per_class=4, gap=0.05)
    assert found.status in ("gap", "optimal")
    assert found.gap <= 0.05


@pytest.fixture
def slow():
    a = twins(f=160, c=30, seed=2)
    return a, selection.redundancy(a, 30, 0.3), {"n_features": 30, "n_per_class": 4, "gap": 0.0, "time_limit": 9}


@pytest.mark.parametrize("stage", ["heuristic", "cutting planes", "branch and cut"])
@pytest.mark.parametrize("signalled", [False, True])
def test_an_interrupt_returns_the_best_selection(slow, stage, signalled):
    a, r, options = slow
    seen = []
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job starts with Ctrl-C ignored

    def interrupt(progress):
        seen.append(progress)
        if progress.stage == stage:
            if not signalled:
                raise KeyboardInterrupt
            os.kill(os.getpid(), signal.SIGINT)

    try:
        found = selection.solve(a, r, **options, on_progress=interrupt)
    finally:
        signal.signal(signal.SIGINT, before)
    assert found.status == "interrupted"
    assert found.objective >= max(p.objective for p in seen) - 1e-6
    assert found.objective < found.bound <= seen[0].bound
    assert found.features.shape == (30,)


def test_an_interrupt_while_splitting_returns_the_best_selection(slow, monkeypatch):
    a, r, options = slow
    monkeypatch.setattr("qpm_lib.selection.solver._SCIP_WORK", -1.0)
    seen = []

    def interrupt(progress):
        seen.append(progress)
        if progress.stage == "splitting" and progress.bound < seen[-2].bound:
            raise KeyboardInterrupt

    found = selection.solve(a, r, **options, on_progress=interrupt)
    assert found.status == "interrupted"
    assert seen[-1].stage == "splitting"
    assert found.objective >= max(p.objective for p in seen) - 1e-6
    assert found.objective < found.bound == seen[-1].bound


def test_an_error_inside_the_solver_is_not_lost(slow):
    a, r, options = slow

    def fail(progress):
        if progress.stage == "branch and cut":
            raise RuntimeError("listener broke")

    with pytest.raises(RuntimeError, match="listener broke"):
        selection.solve(a, r, **options, on_progress=fail)


def test_progress_only_gets_better():
    a, seen = twins(f=120, c=20, seed=7), []
    found = selection.solve(
        a, selection.redundancy(a, 24, "as_written"), n_features=24, n_per_class=4, gap=0.0, on_progress=seen.append
    )
    seconds, objectives, bounds, gaps, stages = (list(column) for column in zip(*seen, strict=True))
    assert seconds == sorted(seconds)
    assert objectives == sorted(objectives)
    assert all(later <= earlier + 1e-9 for earlier, later in itertools.pairwise(bounds))
    assert gaps[-1] == pytest.approx(found.gap, abs=1e-6)
    assert list(dict.fromkeys(stages))[:2] == ["heuristic", "cutting planes"]
    assert objectives[-1] == pytest.approx(found.objective, abs=1e-5)


# -- cuts


def everything(problem):
    """All selections: s, and for every class the value of each of its sets."""
    subsets = list(itertools.combinations(range(problem.n), problem.k))
    for features in itertools.combinations(range(problem.n_candidates), problem.n):
        chosen = np.zeros(problem.n_candidates)
        chosen[list(features)] = 1
        yield (
            chosen,
            subsets,
            np.array(
                [
                    [problem.value[[features[i] for i in sub], c].sum() for sub in subsets]
                    for c in range(problem.n_classes)
                ]
            ),
        )


@settings(max_examples=80, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_no_cut_removes_a_selection(seed):
    """Every cut, separated at a random fractional point, holds for every selection with different class sets."""
    rng = np.random.default_rng(seed)
    a, r, options = instance(seed, f=7, c=3, n=4, k=2)
    problem = make_problem(a, r, **options)
    s = np.clip(rng.dirichlet(np.ones(7)) * 4, 0, 1)
    point = cuts.Point(s, np.full(3, 1e4), np.zeros((7, 7)))
    order = cuts.descending(problem)
    found = cuts.class_cuts(problem, point, order, 0) + class_sets.duplicate_cuts(
        problem, np.sort(rng.choice(7, 4, replace=False))
    )
    found += (
        cuts.pair_rows(problem, point, 0)
        + cuts.clique_cuts(problem, point)
        + cuts.local_cuts(problem, point, rng, size=6)
    )
    if s.sum() > 2.2:
        found += [
            cut
            for cut, _ in filter(
                None, (class_sets.unlike_cut(problem, s, c, d) for c, d in itertools.combinations(range(3), 2))
            )
        ]
    for chosen, subsets, worth in everything(problem):
        for cut in found:
            limit = cut.right + cut.coefficients @ chosen[cut.features]
            limit += sum(w * chosen[i] * chosen[j] for (i, j), w in zip(cut.pairs, cut.weights, strict=True))
            picks = itertools.permutations(range(len(subsets)), len(cut.classes))
            assert (
                max(sum(worth[c, p] for c, p in zip(cut.classes, pick, strict=True)) for pick in picks) <= limit + 1e-6
            )


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_no_sharing_cut_removes_a_selection_that_shares(seed):
    rng = np.random.default_rng(seed)
    a, _, options = instance(seed, f=7, c=2, n=4, k=2)
    problem = make_problem(a, None, **options, pair_constraints=[(0, 1)])
    cut, at_point = class_sets.sharing_cut(problem, np.clip(rng.dirichlet(np.ones(7)) * 4, 0, 1), 0, rng.random())
    for chosen, subsets, worth in everything(problem):
        pairs = [(p, q) for p, q in itertools.permutations(range(len(subsets)), 2) if set(subsets[p]) & set(subsets[q])]
        alike, free = max(worth[0, p] + worth[1, q] for p, q in pairs), worth[0].max() + worth[1].max()
        limit = cut.right + cut.coefficients @ chosen[cut.features]
        assert alike <= limit + cut.similar.sum() + 1e-6
        assert free <= limit + 1e-6
        for share in (0.0, 0.3, 1.0):
            exact, value = class_sets.sharing_cut(problem, chosen, 0, share)
            assert value == pytest.approx(share * alike + (1 - share) * free, abs=1e-6)
        assert (exact.classes, exact.links) == ((0, 1), (0,))
    assert np.isfinite(at_point) or cut.right == np.inf


def test_a_search_for_sets_that_is_cut_short_keeps_what_it_has_and_its_limit(monkeypatch):
    """The limit never says more than is true: what any sets cost at least is no more than what the best ones cost."""
    short = 0
    for seed in range(12):
        a, _, options = instance(seed, f=9, c=8, n=7, k=3)
        pairs = list(itertools.combinations(range(6), 2))
        problem = make_problem(a, None, **options, pair_constraints=pairs, n_pairs=8)
        features = np.arange(7)
        best = assign(problem, features)
        with monkeypatch.context() as patch:
            patch.setattr(sharing, "_NODES", 0)
            found = assign(problem, features)
        assert found.least <= best.loss + 1e-6 <= found.loss + 2e-6
        assert sum((found.matrix[c] & found.matrix[d]).sum() == 2 for c, d in pairs) >= 8
        short += found.least < found.loss - 1e-6
    assert short  # the cut was felt


@pytest.mark.parametrize("seed", range(20))
def test_good_sets_are_as_wished_and_the_estimate_is_exact_for_one_pair(seed):
    rng = np.random.default_rng(seed)
    a, _, options = instance(seed, f=9, c=6, n=7, k=3)
    pairs = [(0, 1), (1, 2), (0, 2), (3, 4)]
    problem = make_problem(a, None, **options, pair_constraints=pairs, n_pairs=int(rng.integers(1, 5)))
    features = np.sort(rng.choice(9, 7, replace=False))
    good, best = assign(problem, features, quick=True), assign(problem, features)
    for found in (good, best):
        w = found.matrix
        assert (w.sum(1) == 3).all()
        assert len({tuple(row) for row in w}) == 6
        assert sum((w[c] & w[d]).sum() == 2 for c, d in pairs) >= problem.n_alike
        assert found.loss >= best.loss - 1e-9
    assert best.least == pytest.approx(best.loss, abs=1e-6)
    assert good.loss <= 3 * best.loss + 1.0  # of values around 10: it is a start, not an answer
    one = make_problem(a[:, :2], None, **options, pair_constraints=[(0, 1)])
    value = one.value[features]
    assert weaving.estimated_loss(value, 3, np.array([[0, 1]]), 1) == pytest.approx(assign(one, features).loss)


def test_the_cut_for_unlike_sets_is_exact_at_a_selection():
    """At a whole point it gives the value of the two best different sets."""
    for seed in range(30):
        a, _, options = instance(seed, f=6, c=2, n=4, k=2)
        a[:, 1] = a[:, 0] + 0.01 * np.random.default_rng(seed).normal(size=6)
        problem = make_problem(a, None, **options)
        features = np.arange(4)
        s = np.zeros(6)
        s[features] = 1
        _, value = class_sets.unlike_cut(problem, s, 0, 1)
        matrix = assign(problem, features).matrix
        assert value == pytest.approx((problem.value[features].T * matrix).sum(), abs=1e-7)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_the_local_cut_is_the_convex_hull(seed):
    """Its violation equals what the cheapest mixture of subsets with these marginals misses,
    from the linear programme over all subsets.
    """
    from scipy.optimize import linprog

    rng = np.random.default_rng(seed)
    size = 6
    penalty = np.triu(np.where(rng.random((size, size)) < 0.6, rng.uniform(0.2, 1, (size, size)), 0), 1)
    penalty += penalty.T
    s, paid = rng.random(size) * 0.8, np.zeros((size, size))
    subsets = ((np.arange(2**size)[:, None] >> np.arange(size)) & 1).astype(float)
    costs = np.einsum("xi,ij,xj->x", subsets, penalty, subsets) / 2
    hull = linprog(costs, A_eq=np.vstack([subsets.T, np.ones(2**size)]), b_eq=np.append(s, 1))
    cut = local_cut(s, paid, penalty, minimum=1e-3)
    violation = cut.coefficients @ s - cut.right if cut else 0.0
    assert violation == pytest.approx(hull.fun, abs=2e-3)
    np.testing.assert_allclose(subset_values(np.zeros(size), penalty), -costs)


# -- contradictions


@pytest.mark.parametrize(
    ("wish", "words"),
    [
        ({"required": [1, 2], "forbidden": [2, 3]}, r"features \[2\] are both required and forbidden"),
        ({"required": range(6)}, "6 features are required but n_features .=5"),
        ({"forbidden": range(4)}, "4 of 8 features are not forbidden but n_features .=5"),
        ({"required": [8]}, "required holds 8: features are numbered 0 to 7"),
        ({"forbidden": [-1]}, "forbidden holds -1"),
        ({"required": [1.5]}, "required .=1.5. must be a whole number"),
        ({"pair_constraints": [(0, 4)]}, r"\(0, 4\): two different classes from 0 to 3"),
        ({"pair_constraints": [(2, 2)]}, "two different classes"),
        ({"pair_constraints": [(0, 1)], "n_pairs": 2}, r"n_pairs .=2. must be from 0 to .* pair_constraints .=1"),
        ({"pair_constraints": [(0, 1)], "n_pairs": 0.5}, "n_pairs .=0.5. must be a whole number"),
        (
            {"n_features": 4, "n_per_class": 3, "n_classes": 5, "pair_constraints": []},
            "5 classes cannot have different sets",
        ),
        ({"n_features": 2.7}, "n_features .=2.7. must be a whole number"),
    ],
)
def test_contradictory_wishes_are_named(wish, words):
    wish = dict(wish)
    a = np.random.default_rng(0).normal(size=(8, wish.pop("n_classes", 4)))
    with pytest.raises(ValueError, match=words):
        make_problem.__wrapped__(a, None, **{"n_features": 5, "n_per_class": 2, **wish})


def test_class_pairs_that_cannot_all_be_alike_are_named():
    """Pairs of features that all meet hold one feature in common, or lie in three: four classes need n >= 5."""
    a = np.random.default_rng(0).normal(size=(7, 6))
    clique = list(itertools.combinations(range(4), 2))
    assert selection.solve(a, None, n_features=5, n_per_class=2, pair_constraints=clique, gap=0.0).status == "optimal"
    with pytest.raises(
        ValueError, match=r"pair_constraints \[\(0, .*\(2, 3\)\] contradict each other: with n_features .=4"
    ):
        selection.solve(a, None, n_features=4, n_per_class=2, pair_constraints=[(4, 5), *clique])
    every = list(itertools.combinations(range(6), 2))  # of the six pairs out of four, twelve times two meet
    with pytest.raises(ValueError, match=r"n_pairs .=13. of 15 pair_constraints cannot be fulfilled together"):
        selection.solve(a, None, n_features=4, n_per_class=2, pair_constraints=every, n_pairs=13)


def test_what_can_be_built_is_known_without_search(monkeypatch):
    """Sets that are built in groups are a proof; all of them here are checked by an integer programme, too."""
    rng, built = np.random.default_rng(5), 0
    for n, k, classes in [(3, 2, 3), (4, 2, 5), (5, 3, 6), (5, 4, 5), (4, 1, 4)]:
        for share in (0.2, 0.5, 1.0):
            pairs = tuple(p for p in itertools.combinations(range(classes), 2) if rng.random() < share)
            if sharing._can_share(n, k, classes, pairs):
                built += 1
                assert sharing.settle_sharing(np.ones((n, classes)), k, list(pairs), len(pairs)).sets is not None
    assert built > 5
    assert not sharing._can_share(4, 2, 4, tuple(itertools.combinations(range(4), 2)))
    monkeypatch.setattr(sharing, "settle_sharing", lambda *_: pytest.fail("searched for what can be built"))
    sharing.check_sharing(50, 5, 200, tuple((c, c + 1) for c in range(0, 200, 2)), 100)  # took minutes by search
