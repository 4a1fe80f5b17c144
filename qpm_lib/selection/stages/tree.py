"""A tighter bound by splitting, for instances whose gap is too wide for SCIP.

A tree of cases, the one with the highest bound first. A case is split on a feature, or on how many features of a
cluster of similar ones are selected ("at most two of these eleven"): that moves the bound where one of many near-copies
does not. Cases are solved with the cutting planes of `bounds` by HiGHS, two at a time. Simplex steps here cost a tenth
of what they cost in SCIP.
"""

import heapq
import itertools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from qpm_lib.selection.problem import SelectionProblem
from qpm_lib.selection.stages.bounds import Group, Relaxation
from qpm_lib.selection.stages.class_sets import sharing_cuts, unlike_cuts, whole_cuts
from qpm_lib.selection.stages.cuts import Cut, class_cuts, clique_cuts, descending, pair_rows
from qpm_lib.selection.stages.heuristic import Candidate, evaluate

_WORKERS, _ROUNDS = 2, 3
_TRIED, _TRIED_FIRST, _STEPS, _TRUSTED = 2, 32, 100, 3
Limits = dict[Group, tuple[float, float]]


class _Trial(NamedTuple):
    """By how much the bound fell when a group was limited downwards and upwards."""

    group: Group
    down: float
    up: float


class _Case(NamedTuple):
    """A case after its cuts: bound, the two cases it splits into (none when it is settled), a whole selection,
    and trials for later.
    """

    bound: float
    parts: tuple[Limits, ...]
    found: Candidate | None
    trials: list[_Trial]


class _Record(NamedTuple):
    down: float = 0.0
    up: float = 0.0
    count: int = 0

    def score(self) -> float:
        return float(np.sqrt(max(self.down / self.count, 1e-4) * max(self.up / self.count, 1e-4)))


def clusters(problem: SelectionProblem) -> list[Group]:
    """Groups of features with similar values over the classes: the inner nodes of an average-linkage tree,
    two features or more.
    """
    from scipy.cluster.hierarchy import linkage

    centred = problem.value - problem.value.mean(1, keepdims=True)
    length = np.linalg.norm(centred, axis=1, keepdims=True)
    tree = linkage(centred / np.maximum(length, 1e-12), "average")
    members = [(f,) for f in range(problem.n_candidates)]
    for left, right in tree[:, :2].astype(int):
        members.append(members[left] + members[right])
    return [tuple(sorted(group)) for group in members[problem.n_candidates : -1]]


class _Worker:
    """One linear programme that visits case after case."""

    def __init__(self, problem: SelectionProblem, cuts: list[Cut], groups: list[Group]) -> None:
        self.problem, self.groups, self.order = problem, groups, descending(problem)
        self.relaxation = Relaxation(problem)
        self.relaxation.add(cuts)
        self.sizes = np.array([len(group) for group in groups])

    def visit(self, bound: float, limits: Limits, target: float, records: dict[Group, _Record], tried: int) -> _Case:
        """Bound a case, and split it if its bound is above the target."""
        problem, relaxation, found = self.problem, self.relaxation, None
        relaxation.limit(limits)
        if relaxation.run() > -np.inf:
            relaxation.purge()
        before = np.inf
        for round_ in itertools.count():
            value, point, _ = relaxation.solve()
            bound = min(bound, value)
            if bound <= target:
                return _Case(bound, (), found, [])
            whole = np.abs(point.s - np.round(point.s)).max() < 1e-6
            if not whole and (round_ >= _ROUNDS or (round_ > 0 and before - value < 3e-5 * abs(value))):
                break
            before = value
            tolerance = 1e-6 * abs(value)
            cuts = class_cuts(problem, point, self.order, tolerance) + pair_rows(
                problem, point, tolerance if whole else 1e-4
            )
            cuts += clique_cuts(problem, point, 1e-2) + sharing_cuts(problem, point, tolerance)
            if round_ == 2:
                cuts += unlike_cuts(problem, point, self.order, 1e-3)
            if whole and not cuts:
                found = evaluate(problem, np.flatnonzero(point.s > 0.5))
                cuts = whole_cuts(problem, point, self.order, tolerance)
                if not cuts:
                    return _Case(bound, (), found, [])
            if not cuts:
                break
            relaxation.add(cuts)
        group, trials = self._split_on(point.s, value, limits, records, tried)
        parts = tuple(self._part(limits, group, point.s, side) for side in (0, 1))
        return _Case(bound, parts, found, trials)

    def _split_on(
        self, s: Float[np.ndarray, "features"], value: float, limits: Limits, records: dict[Group, _Record], tried: int
    ) -> tuple[Group, list[_Trial]]:
        """The group whose limits move the bound most: known from earlier cases, or tried with a few simplex steps."""
        relaxation, mass = self.relaxation, np.array([s[list(group)].sum() for group in self.groups])
        away = np.abs(mass - np.round(mass))
        open_ = np.flatnonzero(away > 1e-6 if (away > 0.02).sum() == 0 else away > 0.02)
        known = [records[self.groups[q]].score() for q in open_ if self.groups[q] in records]
        usual = 1.2 * np.mean(known) if known else 1.0
        hope = np.array(
            [
                records[self.groups[q]].score()
                if self.groups[q] in records
                else usual * (1.0 if self.sizes[q] < 12 else 0.5)
                for q in open_
            ]
        )
        ranked = open_[np.argsort(-hope * (0.3 + away[open_]), kind="stable")]
        best, choice, trials = -1.0, self.groups[ranked[0]], []
        basis, rows = relaxation.model.getBasis(), len(relaxation.rows)
        relaxation.model.setOptionValue("simplex_iteration_limit", _STEPS)
        for q in ranked:
            group = self.groups[q]
            record = records.get(group, _Record())
            if record.count >= _TRUSTED:
                down, up = record.down / record.count, record.up / record.count
            elif len(trials) < tried:
                falls = []
                for side in (0, 1):
                    relaxation.limit(self._part(limits, group, s, side))
                    if len(relaxation.rows) == rows:
                        relaxation.model.setBasis(basis)
                    falls.append(float(np.clip(value - relaxation.run(), 0, 0.02 * abs(value))))
                down, up = falls
                trials.append(_Trial(group, down, up))
            else:
                break
            score = max(down, 1e-4) * max(up, 1e-4)
            if score > best:
                best, choice = score, group
        relaxation.model.setOptionValue("simplex_iteration_limit", 2**31 - 1)
        return choice, trials

    def _part(self, limits: Limits, group: Group, s: Float[np.ndarray, "features"], side: int) -> Limits:
        low, high = limits.get(group, (0.0, float(min(len(group), self.problem.n))))
        cut = float(np.floor(s[list(group)].sum() + 1e-9))
        return {**limits, group: (low, min(high, cut)) if side == 0 else (max(low, cut + 1), high)}


class SplitBound(NamedTuple):
    """`value`: no selection is worth more. `candidate`: the best selection met."""

    value: float
    candidate: Candidate


def split_bound(
    problem: SelectionProblem,
    start: Candidate,
    *,
    cuts: list[Cut],
    bound: float,
    gap: float,
    has_time: Callable[[], bool],
    on_progress: Callable[[Candidate, float], None] = lambda candidate, bound: None,
) -> SplitBound:
    """Split until (bound - objective) / |objective| is at most `gap`, or `has_time` says no.

    Parameters
    ----------
    start : a selection. cuts : tight ones to begin with. bound : proven before. on_progress :
        called with best selection and bound.
    """
    groups = [(f,) for f in range(problem.n_candidates) if f not in problem.required]
    groups += clusters(problem) if problem.n_candidates > 2 else []
    workers = [_Worker(problem, cuts, groups) for _ in range(_WORKERS)]
    best, closed, records, number = start, -np.inf, {}, itertools.count(1)
    heap: list[tuple[float, int, Limits]] = [(-bound, 0, {})]
    with ThreadPoolExecutor(_WORKERS) as pool:
        while heap and has_time():
            target = best.objective + gap * abs(best.objective)
            value = max(-heap[0][0], closed)
            on_progress(best, value)
            if value <= target:
                break
            jobs = [heapq.heappop(heap) for _ in range(min(_WORKERS, len(heap)))]
            tried = _TRIED if records else _TRIED_FIRST
            cases = pool.map(
                lambda job: job[0].visit(-job[1][0], job[1][2], target, records, tried),  # noqa: B023
                list(zip(workers, jobs, strict=False)),
            )
            for case in list(cases):
                for trial in case.trials:
                    seen = records.get(trial.group, _Record())
                    records[trial.group] = _Record(seen.down + trial.down, seen.up + trial.up, seen.count + 1)
                if case.found is not None and case.found.objective > best.objective:
                    best = case.found
                for limits in case.parts:
                    heapq.heappush(heap, (-case.bound, next(number), limits))
                if not case.parts:
                    closed = max(closed, case.bound)
    value = max(-heap[0][0] if heap else -np.inf, closed)
    return SplitBound(max(value, best.objective), best)
