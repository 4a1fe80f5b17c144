"""An upper bound on every selection from a linear programme with cuts, and the features it rules out.

Class weights are left out (Benders), pairs enter only when a cut asks for them. The linear programmes are solved by
HiGHS, warm-started from round to round.
"""

import time
from collections.abc import Callable
from typing import NamedTuple

import highspy
import numpy as np
from jaxtyping import Float

from qpm_lib.selection.problem import SelectionProblem
from qpm_lib.selection.stages.class_sets import sharing_cuts, unlike_cuts
from qpm_lib.selection.stages.cuts import Cut, Point, class_cuts, clique_cuts, descending, local_cuts, pair_rows
from qpm_lib.selection.stages.highs import INFINITE, Highs

Group = tuple[int, ...]
_PURGE_EVERY, _NEAR, _TIGHT = 8, 1e-2, 1e-6
_LOCAL_SHARE, _STALL_SHARE, _STALL_ROUNDS = 0.3, 0.03, 5


class RootBound(NamedTuple):
    """What the cutting planes proved.

    Attributes
    ----------
    value : no selection is worth more. with_feature : (F,) no selection with this feature is worth more.
        without_feature : (F,) no selection without it is. point : the last fractional solution. cuts :
        those that are tight there.
    """

    value: float
    with_feature: Float[np.ndarray, "features"]
    without_feature: Float[np.ndarray, "features"]
    point: Point
    cuts: list[Cut]


class Relaxation:
    """The linear programme: columns s, theta, z, then y as they are asked for; row 0 is sum s = n, row r is
    rows[r - 1].

    A row is a cut, or a group of features whose number of selected ones is limited by `limit`.
    """

    def __init__(self, problem: SelectionProblem) -> None:
        self.problem, self._status = problem, highspy.HighsModelStatus
        f, c = problem.value.shape
        self.model = Highs(solver="simplex", simplex_scale_strategy=0)
        ranked, links = np.sort(problem.value, axis=0), len(problem.sharing)
        lower = np.zeros(f)
        lower[problem.required] = 1.0
        self._columns(
            np.concatenate([-problem.bias, -np.ones(c), np.zeros(links)]),
            np.concatenate([lower, ranked[: problem.k].sum(0), np.full(links, float(problem.all_alike))]),
            np.concatenate([np.ones(f), ranked[-problem.k :].sum(0), np.ones(links)]),
        )
        self.model.addRow(problem.n, problem.n, f, np.arange(f, dtype=np.int32), np.ones(f))
        self.rows: list[Cut | Group] = []
        self._lower, self._limited, self._first = lower, {}, f + c + links
        self.pair_column: dict[tuple[int, int], int] = {}
        if links and not problem.all_alike:
            nothing, least = np.empty(0), -float(problem.n_alike)
            self.add([Cut((), np.empty(0, int), nothing, least, links=tuple(range(links)), similar=np.ones(links))])

    def _columns(self, cost: np.ndarray, lower: np.ndarray, upper: np.ndarray) -> None:
        starts, none = np.zeros(len(cost), np.int32), np.zeros(0, np.int32)
        self.model.addCols(len(cost), cost, lower, upper, 0, starts, none, np.zeros(0))

    def add(self, cuts: list[Cut]) -> None:
        """Take in cuts, and the pairs they mention."""
        if not cuts:
            return
        f, c = self.problem.value.shape
        fresh = list(dict.fromkeys(pair for cut in cuts for pair in cut.pairs if pair not in self.pair_column))
        if fresh:
            for pair in fresh:
                self.pair_column[pair] = self._first + len(self.pair_column)
            self._columns(self.problem.redundancy[tuple(np.array(fresh).T)], np.zeros(len(fresh)), np.ones(len(fresh)))
        columns = [
            np.concatenate(
                [
                    cut.features,
                    f + np.array(cut.classes, int),
                    f + c + np.array(cut.links, int),
                    [self.pair_column[p] for p in cut.pairs],
                ]
            )
            for cut in cuts
        ]
        values = [
            np.concatenate([cut.coefficients, -np.ones(len(cut.classes)), cut.similar, cut.weights]) for cut in cuts
        ]
        starts = np.cumsum([0] + [len(row) for row in columns[:-1]]).astype(np.int32)
        flat = np.concatenate(columns).astype(np.int32)
        lower = np.array([-cut.right for cut in cuts])
        self.model.addRows(
            len(cuts), lower, np.full(len(cuts), INFINITE), len(flat), starts, flat, np.concatenate(values)
        )
        self.rows += cuts

    def limit(self, limits: dict[Group, tuple[float, float]]) -> None:
        """Allow only selections with so many features of each group; forget earlier limits."""
        for group in [*(g for g in self._limited if g not in limits), *limits]:
            wanted = limits.get(group)
            if self._limited.get(group) == wanted:
                continue
            if len(group) == 1:
                self.model.changeColBounds(group[0], *(wanted or (self._lower[group[0]], 1.0)))
                continue
            if group not in self.rows:
                members = np.array(group, np.int32)
                self.model.addRow(-INFINITE, INFINITE, len(group), members, np.ones(len(group)))
                self.rows.append(group)
            self.model.changeRowBounds(1 + self.rows.index(group), *(wanted or (-INFINITE, INFINITE)))
        self._limited = dict(limits)

    def run(self) -> float:
        """Solve, or go on for as many simplex steps as the model allows; the value, or minus infinity when no selection
        is left.
        """
        self.model.run()
        infeasible = self.model.getModelStatus() == self._status.kInfeasible
        return -np.inf if infeasible else -self.model.getInfo().objective_function_value

    def solve(self) -> tuple[float, Point, Float[np.ndarray, "features"]]:
        """Bound, fractional point and reduced costs of the features; an infinite bound should HiGHS fail."""
        value = self.run()
        if value > -np.inf and self.model.getModelStatus() != self._status.kOptimal:
            self.model.clearSolver()
            value = self.run()
            value = value if self.model.getModelStatus() == self._status.kOptimal else np.inf
        solution = self.model.getSolution()
        x = np.array(solution.col_value)
        f, c = self.problem.value.shape
        paid = np.zeros((f, f))
        if self.pair_column:
            i, j = np.array(list(self.pair_column)).T
            paid[i, j] = paid[j, i] = x[self._first :]
        point = Point(np.clip(x[:f], 0, 1), x[f : f + c], paid, x[f + c : self._first])
        return value, point, np.array(solution.col_dual)[:f]

    def slack(self) -> Float[np.ndarray, "rows"]:
        """By how much each row is fulfilled; infinite for groups."""
        right = np.array([row.right if isinstance(row, Cut) else np.inf for row in self.rows])
        return np.array(self.model.getSolution().row_value)[1:] + right

    def purge(self, slack: float = _TIGHT) -> None:
        """Drop cuts with more slack than this, and groups that are free."""
        loose = self.slack() > slack
        loose &= np.array([self._may_go(row) for row in self.rows], bool)
        if loose.any():
            self.model.deleteRows(int(loose.sum()), (np.flatnonzero(loose) + 1).astype(np.int32))
            self.rows = [row for row, out in zip(self.rows, loose, strict=True) if not out]

    def _may_go(self, row: Cut | Group) -> bool:
        """All cuts but the number of pairs of classes that are alike, and groups that are free."""
        return bool(row.classes or row.pairs) if isinstance(row, Cut) else row not in self._limited


def root_bound(
    problem: SelectionProblem,
    *,
    target: float,
    time_limit: float,
    seed: int = 0,
    on_round: Callable[[float, Point], None] = lambda bound, point: None,
) -> RootBound:
    """Add cuts until the bound is at most `target`, no cut is violated, progress towards it stalls,
    or `time_limit` seconds have passed.
    """
    began, rng, order = time.monotonic(), np.random.default_rng([seed, 29]), descending(problem)
    relaxation = Relaxation(problem)
    best, history, local = np.inf, [], False
    with_feature = np.full(problem.n_candidates, np.inf)
    without_feature = with_feature.copy()
    while True:
        value, point, reduced = relaxation.solve()
        best = min(best, value)
        with_feature = np.minimum(with_feature, value - np.maximum(reduced, 0))
        without_feature = np.minimum(without_feature, value - np.maximum(-reduced, 0))
        history.append(value)
        on_round(best, point)
        if value <= target or time.monotonic() - began > time_limit:
            break
        if len(history) % _PURGE_EVERY == 0:
            relaxation.purge(_NEAR)
        tolerance = 1e-6 * abs(value)
        cuts = class_cuts(problem, point, order, tolerance)
        small = len(cuts) < problem.n_classes // 10
        cuts += pair_rows(problem, point, 1e-4) + clique_cuts(problem, point)
        if small:
            cuts += unlike_cuts(problem, point, order, 1e-4) + sharing_cuts(problem, point, tolerance)
        gained = history[-1 - _STALL_ROUNDS] - value if len(history) > _STALL_ROUNDS else np.inf
        left = value - target
        local = local or gained < _LOCAL_SHARE * left
        if local and problem.redundancy.any():
            cuts += local_cuts(problem, point, rng)
        if not cuts or (local and gained < max(_STALL_SHARE * left, 1e-5 * abs(value))):
            break
        relaxation.add(cuts)
    tight = relaxation.slack() <= _TIGHT
    return RootBound(
        best, with_feature, without_feature, point, [c for c, near in zip(relaxation.rows, tight, strict=True) if near]
    )
