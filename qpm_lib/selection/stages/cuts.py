"""Inequalities that hold for every selection with different class sets, found where a fractional point violates them.

The programme is solved over s (which features), theta (value of each class), y (which penalised pairs are paid for) and
z (which pairs of classes have most features in common).
All cuts have one shape: sum of theta over some classes - sum w y <= right + sum a s + sum u z.
"""

from itertools import combinations
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from qpm_lib.selection.problem import SelectionProblem
from qpm_lib.selection.stages.local import local_cut

_MAX_PAIR_ROWS, _MAX_CLIQUES = 400, 200
ZERO = 1e-9


class Cut(NamedTuple):
    """sum of theta over `classes` - `weights` @ y[`pairs`] <= `right` + `coefficients` @ s[`features`] + `similar` @
    z[`links`].
    """

    classes: tuple[int, ...]
    features: Int[np.ndarray, "a"]
    coefficients: Float[np.ndarray, "a"]
    right: float
    pairs: tuple[tuple[int, int], ...] = ()
    weights: Float[np.ndarray, "p"] = np.empty(0)
    links: tuple[int, ...] = ()
    similar: Float[np.ndarray, "l"] = np.empty(0)


class Point(NamedTuple):
    """A solution of a relaxation: s (F,) in 0 to 1, theta (C,), the pairs paid for, y (F, F) symmetric, and z (P,) of
    the pairs of classes.
    """

    s: Float[np.ndarray, "features"]
    theta: Float[np.ndarray, "classes"]
    paid: Float[np.ndarray, "features features"]
    alike: Float[np.ndarray, "links"] = np.empty(0)


def dense_cut(classes: tuple[int, ...], dense: Float[np.ndarray, "features"], right: float) -> Cut:
    """A cut from its coefficients of all features; zeros are left out."""
    used = np.flatnonzero(dense)
    return Cut(classes, used, dense[used], float(right))


def descending(problem: SelectionProblem) -> Int[np.ndarray, "features classes"]:
    """Features of every class from the most to the least valuable."""
    return np.argsort(-problem.value, axis=0, kind="stable")


def class_bounds(
    problem: SelectionProblem, s: Float[np.ndarray, "features"], order: Int[np.ndarray, "features classes"]
) -> tuple[Float[np.ndarray, "classes"], Float[np.ndarray, "classes"]]:
    """For every class the level l at which theta_c <= k l + sum_f s_f max(0, V_fc - l) is tightest, and that bound."""
    used = s[order]
    filled = np.cumsum(used, axis=0) >= problem.k - ZERO
    position = np.where(filled.any(0), filled.argmax(0), len(s) - 1)
    columns = np.arange(problem.n_classes)
    level = problem.value[order[position, columns], columns]
    return level, problem.k * level + s @ np.maximum(problem.value - level, 0)


def class_cuts(
    problem: SelectionProblem, point: Point, order: Int[np.ndarray, "features classes"], tolerance: float
) -> list[Cut]:
    """The violated bounds on single classes."""
    level, bound = class_bounds(problem, point.s, order)
    late = np.flatnonzero(point.theta - bound > tolerance)
    return [dense_cut((int(c),), np.maximum(problem.value[:, c] - level[c], 0), problem.k * level[c]) for c in late]


def pair_rows(problem: SelectionProblem, point: Point, tolerance: float) -> list[Cut]:
    """The most violated of y_ij >= s_i + s_j - 1, weighted by their penalty."""
    support = np.flatnonzero(point.s > ZERO)
    grid = np.ix_(support, support)
    s, penalty = point.s[support], np.triu(problem.redundancy[grid], 1)
    violation = (s[:, None] + s - 1 - point.paid[grid]) * penalty
    i, j = np.nonzero(violation > tolerance)
    worst = np.argsort(-violation[i, j], kind="stable")[:_MAX_PAIR_ROWS]
    ends = [(int(support[i[p]]), int(support[j[p]])) for p in worst]
    return [Cut((), np.array(pair), np.array([-1.0, -1.0]), 1.0, (pair,), np.ones(1)) for pair in ends]


def clique_cuts(problem: SelectionProblem, point: Point, minimum: float = 1e-3) -> list[Cut]:
    """Violated sums over cliques Q of penalised pairs: sum y >= m sum s - m (m + 1) / 2, grown greedily from every
    feature.
    """
    support = np.flatnonzero(point.s > 1e-6)
    grid = np.ix_(support, support)
    s, paid, linked = point.s[support], point.paid[grid], problem.redundancy[grid] > 0
    found: dict[tuple[tuple[int, ...], int], float] = {}
    for start in range(len(support)):
        clique, rest = [start], np.flatnonzero(linked[start])
        score = s[rest] - paid[start, rest]
        while len(rest) and score.max() > 1e-7:
            pick = rest[int(score.argmax())]
            clique.append(int(pick))
            near = linked[pick, rest]
            score = (score - paid[pick, rest])[near]
            rest = rest[near]
        weight = s[clique].sum()
        m = max(1, int(weight + ZERO))
        violation = m * weight - m * (m + 1) / 2 - paid[np.ix_(clique, clique)].sum() / 2
        if len(clique) > 2 and violation > minimum:
            found[tuple(sorted(support[clique].tolist())), m] = float(violation)
    worst = sorted(found, key=lambda key: (-found[key], key))[:_MAX_CLIQUES]
    return [
        Cut(
            (),
            np.array(q),
            np.full(len(q), -float(m)),
            m * (m + 1) / 2,
            tuple(combinations(q, 2)),
            np.ones(len(q) * (len(q) - 1) // 2),
        )
        for q, m in worst
    ]


def local_cuts(
    problem: SelectionProblem, point: Point, rng: np.random.Generator, *, size: int = 14, count: int = 40
) -> list[Cut]:
    """Violated cuts on what small groups of similar features pay together, whatever their pairs (see `local`)."""
    support = np.flatnonzero(point.s > 1e-6)
    grid = np.ix_(support, support)
    s, paid, penalty = point.s[support], point.paid[grid], problem.redundancy[grid]
    linked, cuts, seen = penalty > 0, [], set()
    for start in rng.permutation(len(support))[:count]:
        group, paying = [int(start)], bool(rng.integers(2))
        while len(group) < min(size, len(support)):
            score = (linked[:, group] * s[group]).sum(1) * s * (1 + 0.3 * rng.random(len(s)))
            if paying:
                score -= paid[:, group].sum(1)
            score[group] = -np.inf
            group.append(int(score.argmax()))
        group.sort()
        if tuple(group) in seen:
            continue
        seen.add(tuple(group))
        found = local_cut(s[group], paid[np.ix_(group, group)], penalty[np.ix_(group, group)])
        if found:
            i, j = np.triu_indices(len(group), 1)
            weights = found.weights[i, j]
            used, members = weights > ZERO, support[group]
            pairs = tuple(zip(members[i[used]].tolist(), members[j[used]].tolist(), strict=True))
            cuts.append(Cut((), members, -found.coefficients, found.right, pairs, weights[used]))
    return cuts
