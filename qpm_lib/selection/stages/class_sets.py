"""Inequalities about the sets of features of several classes: no two are the same, some must have most in common."""

from collections import defaultdict

import numpy as np
from jaxtyping import Float, Int

from qpm_lib.selection.problem import SelectionProblem
from qpm_lib.selection.stages.assignment import assign
from qpm_lib.selection.stages.cuts import ZERO, Cut, Point, class_bounds, dense_cut

_MAX_UNLIKE = 60


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
        if (first, second) in problem.sharing:
            continue
        shared = np.maximum(weights[:, first] + weights[:, second] - available, 0).sum()
        found = unlike_cut(problem, point.s, first, second) if shared > problem.k - 1 + 1e-6 else None
        if found and point.theta[first] + point.theta[second] > found[1] + tolerance:
            cuts.append(found[0])
            if len(cuts) == _MAX_UNLIKE:
                break
    return cuts


def sharing_cut(problem: SelectionProblem, s: Float[np.ndarray, "features"], c: int, d: int) -> tuple[Cut, float]:
    """The tightest cut at s from two classes having exactly k - 1 features in common, and its value there.

    Each feature serves both classes (k - 1 of them), only c (one) or only d (one). The dual of that transportation
    problem gives theta_c + theta_d <= (k - 1) p + l_c + l_d + sum_f s_f max(0, V_fc + V_fd - p, V_fc - l_c, V_fd - l_d)
    for any p, l_c, l_d.
    """
    from scipy.optimize import linprog

    support, k = np.flatnonzero(s > ZERO), problem.k
    vc, vd, m = problem.value[support, c], problem.value[support, d], len(support)
    result = linprog(
        -np.concatenate([vc + vd, vc, vd]),
        A_ub=np.hstack([np.eye(m)] * 3),
        b_ub=s[support],
        A_eq=np.kron(np.eye(3), np.ones(m)),
        b_eq=[k - 1, 1, 1],
        method="highs-ds",
    )
    if result.status != 0:
        return Cut((c, d), np.empty(0, int), np.empty(0), np.inf), np.inf
    p, lc, ld = -result.eqlin.marginals
    vc, vd = problem.value[:, c], problem.value[:, d]
    dense = np.maximum.reduce([np.zeros(len(s)), vc + vd - p, vc - lc, vd - ld])
    right = (k - 1) * p + lc + ld
    return dense_cut((c, d), dense, right), float(right + dense @ s)


def sharing_cuts(problem: SelectionProblem, point: Point, tolerance: float) -> list[Cut]:
    """Violated cuts of the class pairs that must have k - 1 features in common."""
    found = [sharing_cut(problem, point.s, c, d) for c, d in problem.sharing]
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
    loss = assign(problem, features).loss
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
