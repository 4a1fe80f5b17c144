"""Inequalities about the sets of features of several classes: no two are the same, some must have most in common."""

from collections import defaultdict

import numpy as np
from jaxtyping import Float, Int

from qpm_lib.selection.problem import SelectionProblem
from qpm_lib.selection.stages.assignment import assign
from qpm_lib.selection.stages.cuts import ZERO, Cut, Point, class_bounds, dense_cut

_MAX_UNLIKE = 60
_ENOUGH, _ALIKE = 2.0, 1e-3


def filled_weights(
    problem: SelectionProblem, s: Float[np.ndarray, "features"], order: Int[np.ndarray, "features classes"]
) -> Float[np.ndarray, "features classes"]:
    """Fractional class weights at s when every class fills k units with its most valuable features."""
    sorted_s = s[order]
    before = np.cumsum(sorted_s, axis=0) - sorted_s
    filled = np.empty_like(sorted_s)
    np.put_along_axis(filled, order, np.clip(problem.k - before, 0, sorted_s), axis=0)
    return filled


def unlike_cut(problem: SelectionProblem, s: Float[np.ndarray, "features"], c: int, d: int) -> tuple[Cut, float] | None:
    """The tightest cut at s from two classes having different sets, and its value there.

    Different sets share at most k - 1 features, and W_fc W_fd >= W_fc + W_fd - s_f. The dual of the small linear
    programme in which each feature serves both classes, only c, or only d, has three numbers l_c, l_d, p;
    any choice of them gives a valid cut: theta_c + theta_d <= k (l_c + l_d) + (k - 1) p + sum_f s_f (max(0, a) + max(0,
    b) - clip(min(a, b), 0, p)), a = V_fc - l_c, b = V_fd - l_d.
    """
    from scipy.optimize import linprog

    support, k = np.flatnonzero(s > ZERO), problem.k
    vc, vd, m = problem.value[support, c], problem.value[support, d], len(support)
    one, zero, eye = np.ones(m), np.zeros(m), np.eye(m)
    result = linprog(
        -np.concatenate([vc + vd, vc, vd]),
        A_ub=np.vstack([np.concatenate([one, zero, zero]), np.hstack([eye, eye, eye])]),
        b_ub=np.concatenate([[k - 1], s[support]]),
        A_eq=np.stack([np.concatenate([one, one, zero]), np.concatenate([one, zero, one])]),
        b_eq=[k, k],
        method="highs-ds",
    )
    if result.status != 0:
        return None
    (lc, ld), p = -result.eqlin.marginals, max(0.0, -result.ineqlin.marginals[0])
    a, b = problem.value[:, c] - lc, problem.value[:, d] - ld
    dense = np.maximum(a, 0) + np.maximum(b, 0) - np.clip(np.minimum(a, b), 0, p)
    right = k * (lc + ld) + (k - 1) * p
    return dense_cut((c, d), dense, right), float(right + dense @ s)


def unlike_cuts(
    problem: SelectionProblem, point: Point, order: Int[np.ndarray, "features classes"], tolerance: float
) -> list[Cut]:
    """Violated cuts of the class pairs that would share more than k - 1 features."""
    support = np.flatnonzero(point.s > ZERO)
    weights, available = filled_weights(problem, point.s, order)[support], point.s[support]
    scaled = weights / np.sqrt(available)[:, None]
    c, d = np.nonzero(
        np.triu(scaled.T @ scaled, 1) > problem.k - 1 + 1e-6
    )  # (s - a)(s - b) >= 0: an upper bound of what is shared
    cuts = []
    for first, second in zip(c.tolist(), d.tolist(), strict=True):
        if problem.all_alike and (first, second) in problem.sharing:
            continue
        shared = np.maximum(weights[:, first] + weights[:, second] - available, 0).sum()
        found = unlike_cut(problem, point.s, first, second) if shared > problem.k - 1 + 1e-6 else None
        if found and point.theta[first] + point.theta[second] > found[1] + tolerance:
            cuts.append(found[0])
            if len(cuts) == _MAX_UNLIKE:
                break
    return cuts


def _near_top(problem: SelectionProblem, s: Float[np.ndarray, "features"], c: int, d: int) -> Int[np.ndarray, "near"]:
    """Features that a fractional selection can give to two classes, alone or together."""
    support = np.flatnonzero(s > ZERO)
    near = np.zeros(len(support), bool)
    vc, vd = problem.value[support, c], problem.value[support, d]
    for value in (vc, vd, vc + vd):
        order = np.argsort(-value, kind="stable")
        filled = np.cumsum(s[support][order]) - s[support][order]
        near[order[filled < _ENOUGH * problem.k]] = True
    return support[near]


def sharing_cut(
    problem: SelectionProblem, s: Float[np.ndarray, "features"], link: int, alike: float = 1.0
) -> tuple[Cut, float]:
    """The tightest cut found at s and z from two classes having k - 1 features in common when z = 1, and its value
    there.

    A share z of the two classes is alike: k - 1 features serve both and one more each of them, different ones. The
    rest, 1 - z, is free: k features for each. No feature is used by a class more than s, nor in a part more than that
    part. The dual of this transportation problem is linear in s and z, and feasible for every other feature, too, when
    that one's price is raised as needed: so it holds for all selections.
    """
    from scipy.optimize import linprog
    from scipy.sparse import eye, kron

    (c, d), k, near = problem.sharing[link], problem.k, _near_top(problem, s, *problem.sharing[link])
    vc, vd, m = problem.value[near, c], problem.value[near, d], len(near)
    # both; c and d where alike; c and d where free
    used = [[1, 1, 0, 1, 0], [1, 0, 1, 0, 1], [1, 1, 1, 0, 0], [1, 1, 1, 0, 0], [0, 0, 0, 1, 0], [0, 0, 0, 0, 1]]
    rest = 1 - alike
    right = np.concatenate([s[near], s[near], s[near], np.full(m, alike), np.full(m, rest), np.full(m, rest)])
    wanted = np.array([(k - 1) * alike, alike, alike, k * rest, k * rest])
    result = linprog(
        -np.concatenate([vc + vd, vc, vd, vc, vd]),
        A_ub=kron(np.array(used, float), eye(m)).tocsr(),
        b_ub=right,
        A_eq=kron(np.eye(5), np.ones(m)).tocsr(),
        b_eq=wanted,
        method="highs-ds",
    )
    if result.status != 0:
        return Cut((c, d), np.empty(0, int), np.empty(0), np.inf), np.inf
    both, lc, ld, gc, gd = -result.eqlin.marginals
    price = -result.ineqlin.marginals.reshape(6, m).clip(max=0.0)
    full = np.zeros((6, len(s)))
    full[:, near] = price
    vc, vd = problem.value[:, c], problem.value[:, d]
    u = np.maximum(full[0], vc - gc - full[4])
    v = np.maximum(full[1], vd - gd - full[5])
    e = np.maximum.reduce([full[2], vc + vd - both - u - v - full[3], vc - lc - u - full[3], vd - ld - v - full[3]])
    inside = (k - 1) * both + lc + ld + full[3].sum()
    outside = k * (gc + gd) + full[4:].sum()
    dense = u + v + e
    cut = dense_cut((c, d), dense, outside)._replace(links=(link,), similar=np.array([inside - outside]))
    return cut, float(outside + (inside - outside) * alike + dense @ s)


def sharing_cuts(problem: SelectionProblem, point: Point, tolerance: float) -> list[Cut]:
    """Violated cuts of the class pairs that must have k - 1 features in common, as far as they are chosen to."""
    alike = np.clip(point.alike, 0, 1)
    found = [sharing_cut(problem, point.s, q, float(alike[q])) for q in np.flatnonzero(alike > _ALIKE).tolist()]
    return [cut for cut, value in found if point.theta[list(cut.classes)].sum() > value + tolerance]


def duplicate_cuts(problem: SelectionProblem, features: Int[np.ndarray, "n"]) -> list[Cut]:
    """For each group of classes whose k best of `features` coincide: a cut that lets at most one of them use that set.

    With Q the set and p_c the gap between the k-th and (k+1)-th value of class c, lower the value of Q by p_c each.
    A class that uses all of Q gets p_c k back, any other class at most p_c (k - 1).
    """
    inside, k = problem.value[features], problem.k
    if len(features) == k:
        return []
    order = np.argsort(-inside, axis=0, kind="stable")
    groups: dict[tuple[int, ...], list[int]] = defaultdict(list)
    for c in range(problem.n_classes):
        groups[tuple(sorted(order[:k, c].tolist()))].append(c)
    cuts = []
    for subset, classes in groups.items():
        if len(classes) < 2:
            continue
        dense, right, gaps = np.zeros(problem.n_candidates), 0.0, []
        for c in classes:
            following = inside[order[k, c], c]
            gap = inside[order[k - 1, c], c] - following
            lowered = problem.value[:, c].copy()
            lowered[features[list(subset)]] -= gap
            dense += np.maximum(lowered - following, 0)
            right += k * following + (k - 1) * gap
            gaps.append(gap)
        cuts.append(dense_cut(tuple(classes), dense, right + max(gaps)))
    return cuts


def whole_cuts(
    problem: SelectionProblem, point: Point, order: Int[np.ndarray, "features classes"], tolerance: float
) -> list[Cut]:
    """Cuts that remove a point with integral s whose class values cannot be had with different (and, where asked,
    similar) class sets.
    """
    chosen = point.s > 0.5
    features = np.flatnonzero(chosen)
    level, bound = class_bounds(problem, chosen.astype(float), order)
    loss = assign(problem, features).least
    if point.theta.sum() <= bound.sum() - loss + tolerance:
        return []
    cuts = [
        cut
        for cut in duplicate_cuts(problem, features)
        if point.theta[list(cut.classes)].sum() > cut.right + cut.coefficients @ point.s[cut.features] + tolerance
    ]
    if cuts:
        return cuts
    dense = np.maximum(problem.value - level, 0).sum(1) - loss * chosen
    return [dense_cut(tuple(range(problem.n_classes)), dense, problem.k * level.sum() + loss * (problem.n - 1))]
