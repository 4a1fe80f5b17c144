"""Inequalities that hold for every selection with different class sets, tightest at a given fractional point."""

from collections import defaultdict
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from qpm_lib.selection.problem import SelectionProblem


class Cut(NamedTuple):
    """sum of theta over `classes` <= right + coefficients @ s."""

    classes: list[int]
    coefficients: Float[np.ndarray, "features"]
    right: float


def class_cuts(
    problem: SelectionProblem, s: Float[np.ndarray, "features"], order: Int[np.ndarray, "features classes"]
) -> tuple[Float[np.ndarray, "classes"], Float[np.ndarray, "classes"]]:
    """For every class the l that makes its cut tightest at s, and the value of that cut. `order` sorts each column of V downwards."""
    ranked = np.take_along_axis(problem.value, order, axis=0)
    filled = np.cumsum(s[order], axis=0) >= problem.k - 1e-9
    position = np.where(filled.any(0), filled.argmax(0), len(s) - 1)
    level = ranked[position, np.arange(problem.n_classes)]
    return level, problem.k * level + (s[:, None] * np.maximum(problem.value - level, 0)).sum(0)


def duplicate_cuts(problem: SelectionProblem, features: Int[np.ndarray, "n"]) -> list[Cut]:
    """For each group of classes whose k best of `features` coincide: a cut that lets at most one of them use that set.

    With Q the set and p_c the gap between the k-th and (k+1)-th value of class c, lower the value of Q by p_c each. A class that uses
    all of Q gets p_c k back, any other class at most p_c (k - 1).
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
        coefficients, right, gaps = np.zeros(problem.n_candidates), 0.0, []
        for c in classes:
            following = inside[order[k, c], c]
            gap = inside[order[k - 1, c], c] - following
            lowered = problem.value[:, c].copy()
            lowered[features[list(subset)]] -= gap
            coefficients += np.maximum(lowered - following, 0)
            right += k * following + (k - 1) * gap
            gaps.append(gap)
        cuts.append(Cut(classes, coefficients, right + max(gaps)))
    return cuts


def filled_weights(
    problem: SelectionProblem, s: Float[np.ndarray, "features"], order: Int[np.ndarray, "features classes"]
) -> Float[np.ndarray, "features classes"]:
    """Fractional class weights at s when every class fills k units with its most valuable features."""
    sorted_s = s[order]
    before = np.cumsum(sorted_s, axis=0) - sorted_s
    filled = np.empty_like(sorted_s)
    np.put_along_axis(filled, order, np.clip(problem.k - before, 0, sorted_s), axis=0)
    return filled


def pair_cut(problem: SelectionProblem, s: Float[np.ndarray, "features"], c: int, d: int) -> tuple[Cut, float]:
    """The tightest cut at s from two classes having different sets, and its value there.

    Different sets share at most k - 1 features, and W_fc W_fd >= W_fc + W_fd - s_f. The dual of the small linear programme in which
    each feature serves both classes, only c, or only d, has three numbers l_c, l_d, p; any choice of them gives a valid cut:
    theta_c + theta_d <= k (l_c + l_d) + (k - 1) p + sum_f s_f (max(0, a) + max(0, b) - clip(min(a, b), 0, p)), a = V_fc - l_c, b = V_fd - l_d.
    """
    from scipy.optimize import linprog

    support, k = np.flatnonzero(s > 1e-9), problem.k
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
        return Cut([c, d], np.zeros(len(s)), np.inf), np.inf
    (lc, ld), p = -result.eqlin.marginals, max(0.0, -result.ineqlin.marginals[0])
    a, b = problem.value[:, c] - lc, problem.value[:, d] - ld
    coefficients = np.maximum(a, 0) + np.maximum(b, 0) - np.clip(np.minimum(a, b), 0, p)
    right = k * (lc + ld) + (k - 1) * p
    return Cut([c, d], coefficients, right), float(right + coefficients @ s)
