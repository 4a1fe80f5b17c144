"""Best class sets for given features, all of them different: exact and polynomial.

Without the last condition each class takes its k most valuable features. With it, choosing the sets is an assignment
problem, solved by shortest augmenting paths over sets that are listed only when they are needed.
"""

import heapq
from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from qpm_lib.selection.problem import SelectionProblem
from qpm_lib.selection.stages.sharing import settle_sharing
from qpm_lib.selection.stages.subsets import Subset, best_subsets
from qpm_lib.selection.stages.weaving import weave

_EXACT, _EPSILON = 3000, 1e-6


class Assignment(NamedTuple):
    """`matrix` (C, n), `loss`: what its sets cost against each class taking its k best, and `least`: what any sets
    that are as wished cost at least.
    """

    matrix: Bool[np.ndarray, "classes n"]
    loss: float
    least: float


class _Options:
    """The sets of one class, best first, listed only as far as somebody asked."""

    def __init__(self, values: Float[np.ndarray, "n"], k: int) -> None:
        self._rest, self._listed = best_subsets(values, k), []

    def __iter__(self) -> Iterator[tuple[float, Subset]]:
        yield from self._listed
        for option in self._rest:
            self._listed.append(option)
            yield option


class _Matching:
    """Classes and the sets they have, at the least total loss; grows by one class at a time.

    A new class takes the end of a shortest augmenting path (Jonker and Volgenant, Computing 38, 1987):
    a set that nobody has, or one whose owner moves on. A class looks at its sets only up to the first free one,
    since none after it can be nearer.
    """

    def __init__(self, value: Float[np.ndarray, "n classes"], k: int) -> None:
        self.value, self.k = value, k
        self.owner: dict[Subset, int] = {}
        self.options: dict[int, _Options] = {}
        self.level: dict[int, float] = defaultdict(float)
        self.price: dict[Subset, float] = defaultdict(float)

    def add(self, start: int) -> None:
        """Give class `start` a set."""
        row, reached, passed, via = start, 0.0, {start: 0.0}, {}
        heap: list[tuple[float, Subset, int]] = []
        while True:
            if row not in self.options:
                self.options[row] = _Options(self.value[:, row], self.k)
            for loss, subset in self.options[row]:
                heapq.heappush(heap, (reached + loss - self.level[row] - self.price[subset], subset, row))
                if subset not in self.owner:
                    break
            while True:
                reached, subset, before = heapq.heappop(heap)
                if subset not in via:
                    break
            via[subset] = before
            if subset not in self.owner:
                break
            row = self.owner[subset]
            passed[row] = reached
        for c, distance in passed.items():
            self.level[c] += reached - distance
        for taken in via:
            if taken in self.owner:
                self.price[taken] -= reached - passed[self.owner[taken]]
        held = {c: taken for taken, c in self.owner.items() if c in passed}
        while True:
            c = via[subset]
            self.owner[subset] = c
            if c == start:
                return
            subset = held[c]


def _settle(value: Float[np.ndarray, "n classes"], k: int, best: list[Subset]) -> tuple[list[Subset], float]:
    """Different sets for all classes at the least total loss, and that loss; `best`: the sets they would take alone."""
    matching = _Matching(value, k)
    late = [c for c, subset in enumerate(best) if matching.owner.setdefault(subset, c) != c]
    for c in late:
        matching.add(c)
    sets = [subset for subset, _ in sorted(matching.owner.items(), key=lambda item: item[1])]
    lost = [next(loss for loss, subset in matching.options[c] if subset == sets[c]) for c in matching.options]
    return sets, float(sum(lost))


def is_exact(problem: SelectionProblem) -> bool:
    """Whether `assign` finds the best sets and proves it: where similar classes are asked for, only of few classes."""
    involved = len({c for pair in problem.sharing for c in pair})
    return (involved + len(problem.sharing)) * problem.n <= _EXACT


def assign(problem: SelectionProblem, features: Int[np.ndarray, "n"], *, quick: bool = False) -> Assignment:
    """The most valuable class sets of k features out of `features`, no two classes alike, similar where the problem
    asks for it.

    Parameters
    ----------
    quick : take good sets where similar classes are asked for, without a proof.
    """
    value = problem.value[features]
    if problem.sharing:
        return _assign_sharing(problem, value, quick)
    top = np.argsort(-value, axis=0, kind="stable")[: problem.k]
    sets = [tuple(sorted(top[:, c].tolist())) for c in range(problem.n_classes)]
    sets, loss = _settle(value, problem.k, sets)
    matrix = np.zeros((problem.n_classes, len(features)), bool)
    for c, subset in enumerate(sets):
        matrix[c, list(subset)] = True
    return Assignment(matrix, loss, loss)


def _assign_sharing(problem: SelectionProblem, value: Float[np.ndarray, "n classes"], quick: bool) -> Assignment:
    wishes, limit, found = (list(problem.sharing), problem.n_alike), np.inf, []
    if is_exact(problem) and not quick:
        found, limit = _settled(value, problem.k, *wishes)
    if not found or limit > value.T[found[0]].sum() + _EPSILON:
        found += [matrix for matrix in [weave(value, problem.k, *wishes)] if matrix is not None]
    if not found and limit == np.inf:
        found, limit = _settled(value, problem.k, *wishes)
    if not found:
        raise ValueError(f"no class sets were found with which {wishes[1]} of pair_constraints {wishes[0]} are alike")
    matrix, best = max(found, key=lambda m: value.T[m].sum()), -np.partition(-value, problem.k - 1, axis=0)[: problem.k]
    loss = max(0.0, float(best.sum() - value.T[matrix].sum()))
    return Assignment(matrix, loss, float(np.clip(best.sum() - limit, 0.0, loss)))


def _settled(
    value: Float[np.ndarray, "n classes"], k: int, sharing: list[tuple[int, int]], n_alike: int
) -> tuple[list[Bool[np.ndarray, "classes n"]], float]:
    """The sets of `settle_sharing` as a matrix, if there are any, and their limit."""
    sets, limit = settle_sharing(value, k, sharing, n_alike)
    return ([] if sets is None else [_matrix(sets, value)]), limit


def _matrix(sets: Mapping[int, Subset], value: Float[np.ndarray, "n classes"]) -> Bool[np.ndarray, "classes n"]:
    matrix = np.zeros(value.T.shape, bool)
    for c, subset in sets.items():
        matrix[c, list(subset)] = True
    return matrix


def relaxed_objective(problem: SelectionProblem, features: Int[np.ndarray, "n"]) -> float:
    """Value of a feature set when classes may share their sets: an upper bound on its true value, and quick."""
    value = problem.value[features]
    best = -np.partition(-value, problem.k - 1, axis=0)[: problem.k]
    pairs = problem.redundancy[np.ix_(features, features)].sum() / 2
    return float(best.sum() + problem.bias[features].sum() - pairs)
