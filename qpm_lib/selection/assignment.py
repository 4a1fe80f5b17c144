"""Best class sets for given features, all of them different: exact and polynomial.

Without the last condition each class takes its k most valuable features. Classes that would end up with the same set are settled
together: for m such classes, the m best sets of each are enough, and choosing among them is an assignment problem.
"""

import heapq
from collections import defaultdict
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from qpm_lib.selection.problem import SelectionProblem
from qpm_lib.selection.sharing import settle_sharing


class Assignment(NamedTuple):
    """`matrix` (C, n) and `loss`: what the different sets cost against each class taking its k best."""

    matrix: Bool[np.ndarray, "classes n"]
    loss: float


def best_subsets(values: Float[np.ndarray, "n"], k: int, count: int) -> list[tuple[float, tuple[int, ...]]]:
    """The `count` most valuable k-subsets, best first, each with its loss against the best and its ascending indices."""
    order = np.argsort(-values, kind="stable")
    ranked = values[order]
    heap = [(0.0, tuple(range(k)))]
    seen, found = {heap[0][1]}, []
    while heap and len(found) < count:
        loss, ranks = heapq.heappop(heap)
        found.append((loss, tuple(sorted(order[list(ranks)].tolist()))))
        for i, rank in enumerate(ranks):
            following = ranks[i + 1] if i + 1 < k else len(values)
            if rank + 1 < following:
                moved = (*ranks[:i], rank + 1, *ranks[i + 1 :])
                if moved not in seen:
                    seen.add(moved)
                    heapq.heappush(heap, (loss + ranked[rank] - ranked[rank + 1], moved))
    return found


def _settle(group: set[int], options: dict[int, list[tuple[float, tuple[int, ...]]]]) -> tuple[dict[int, tuple[int, ...]], float]:
    """Different sets for a group of classes from their options, at the least loss."""
    from scipy.optimize import linear_sum_assignment

    classes = sorted(group)
    columns: dict[tuple[int, ...], int] = {}
    for c in classes:
        for _, subset in options[c]:
            columns.setdefault(subset, len(columns))
    cost = np.full((len(classes), len(columns)), np.inf)
    for row, c in enumerate(classes):
        for loss, subset in options[c]:
            cost[row, columns[subset]] = loss
    rows, chosen = linear_sum_assignment(cost)
    subsets = list(columns)
    return {classes[r]: subsets[q] for r, q in zip(rows, chosen, strict=True)}, float(cost[rows, chosen].sum())


def _groups(
    value: Float[np.ndarray, "n classes"], k: int, sets: list[tuple[int, ...]]
) -> list[tuple[set[int], dict[int, list[tuple[float, tuple[int, ...]]]]]]:
    """Classes that must be settled together, with the sets each might take: as many as the group has classes.

    A group starts with the classes that want one set, and grows by every class and group that wants or might take one of its sets.
    Groups have no set in common, so each can be settled by itself.
    """
    owners: dict[tuple[int, ...], set[int]] = defaultdict(set)
    for c, subset in enumerate(sets):
        owners[subset].add(c)
    pending = [set(classes) for classes in owners.values() if len(classes) > 1]
    done: list[tuple[set[int], dict]] = []
    while pending:
        group = pending.pop()
        options = {c: best_subsets(value[:, c], k, len(group)) for c in sorted(group)}
        wanted = {subset for choices in options.values() for _, subset in choices}
        grown = group.union(*(owners[subset] for subset in wanted if subset in owners))
        for other in [o for o in done if o[0] & grown or any(s in wanted for choices in o[1].values() for _, s in choices)]:
            grown |= other[0]
            done.remove(other)
        for other in [o for o in pending if o & grown]:
            grown |= other
            pending.remove(other)
        if grown == group:
            done.append((group, options))
        else:
            pending.append(grown)
    return done


def assign(problem: SelectionProblem, features: Int[np.ndarray, "n"]) -> Assignment:
    """The most valuable class sets of k features out of `features`, no two classes alike, similar where the problem asks for it."""
    value = problem.value[features]
    if problem.sharing:
        return _assign_sharing(problem, value)
    top = np.argsort(-value, axis=0, kind="stable")[: problem.k]
    sets = [tuple(sorted(top[:, c].tolist())) for c in range(problem.n_classes)]
    loss = 0.0
    for group, options in _groups(value, problem.k, sets):
        settled, lost = _settle(group, options)
        loss += lost
        for c, subset in settled.items():
            sets[c] = subset
    matrix = np.zeros((problem.n_classes, len(features)), bool)
    for c, subset in enumerate(sets):
        matrix[c, list(subset)] = True
    return Assignment(matrix, loss)


def _assign_sharing(problem: SelectionProblem, value: Float[np.ndarray, "n classes"]) -> Assignment:
    sets = settle_sharing(value, problem.k, list(problem.sharing))
    if sets is None:
        raise ValueError(f"pair_constraints {list(problem.sharing)} cannot be fulfilled: see check_sharing")
    matrix = np.zeros(value.T.shape, bool)
    for c, subset in sets.items():
        matrix[c, list(subset)] = True
    best = -np.partition(-value, problem.k - 1, axis=0)[: problem.k]
    return Assignment(matrix, max(0.0, float(best.sum() - value.T[matrix].sum())))


def relaxed_objective(problem: SelectionProblem, features: Int[np.ndarray, "n"]) -> float:
    """Value of a feature set when classes may share their sets: an upper bound on its true value, and quick."""
    value = problem.value[features]
    best = -np.partition(-value, problem.k - 1, axis=0)[: problem.k]
    pairs = problem.redundancy[np.ix_(features, features)].sum() / 2
    return float(best.sum() + problem.bias[features].sum() - pairs)
