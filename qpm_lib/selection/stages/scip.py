"""Proof by branch and cut in SCIP.

Binary s_f selects features, theta_c is the value of class c, y_ij >= s_i + s_j - 1 pays for a penalised pair. Everything else is
separated when it is violated (see `cuts`).
"""

import functools
import logging
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pyscipopt
from pyscipopt import SCIP_EVENTTYPE, SCIP_RESULT

from qpm_lib.selection.problem import SelectionProblem
from qpm_lib.selection.stages.assignment import assign
from qpm_lib.selection.stages.class_sets import sharing_cuts, unlike_cuts, whole_cuts
from qpm_lib.selection.stages.cuts import (
    Cut,
    Point,
    class_bounds,
    class_cuts,
    clique_cuts,
    descending,
    pair_rows,
)
from qpm_lib.selection.stages.heuristic import Candidate, evaluate

log = logging.getLogger(__name__)
_TOLERANCE = 1e-6


class Proof(NamedTuple):
    """What SCIP found: the best selection, an upper bound on every selection, and how the search ended."""

    candidate: Candidate
    bound: float
    status: str


def _guarded(answer: Callable) -> Callable:
    """SCIP ignores what a callback raises: keep the first error, stop the search, and let `prove` raise it."""

    @functools.wraps(answer)
    def guarded(self: object, *arguments: object) -> object:
        try:
            return answer(self, *arguments)
        except BaseException as error:
            self.trouble.append(error)
            self.model.interruptSolve()
            return {"result": SCIP_RESULT.INFEASIBLE if answer.__name__ == "conscheck" else SCIP_RESULT.DIDNOTRUN}

    return guarded


class _Handler(pyscipopt.Conshdlr):
    """Separates, enforces and checks what the model leaves out."""

    def __init__(self, problem: SelectionProblem) -> None:
        self.trouble: list[BaseException] = []
        self.problem, self.order = problem, descending(problem)
        self.pairs = np.argwhere(np.triu(problem.redundancy, 1) > 0)
        self.pair_of = {pair: p for p, pair in enumerate(map(tuple, self.pairs.tolist()))}

    def bind(self, s: list, theta: list, y: list) -> None:
        """Take the variables of the model."""
        self.s, self.theta, self.y = s, theta, y

    def point(self, solution: object = None) -> Point:
        """Values of a solution, by default of the current linear programme."""
        read = self.model.getSolVal
        s, theta, y = (np.array([read(solution, v) for v in group]) for group in (self.s, self.theta, self.y))
        paid = np.zeros_like(self.problem.redundancy)
        if len(y):
            i, j = self.pairs.T
            paid[i, j] = paid[j, i] = y
        return Point(np.clip(s, 0, 1), theta, paid)

    def terms(self, cut: Cut) -> list[tuple]:
        """The left side of sum theta - w y - a s <= right."""
        terms = [(self.theta[c], 1.0) for c in cut.classes]
        terms += [(self.s[f], -float(a)) for f, a in zip(cut.features, cut.coefficients, strict=True)]
        return terms + [(self.y[self.pair_of[pair]], -float(w)) for pair, w in zip(cut.pairs, cut.weights, strict=True)]

    def _add(self, cuts: list[Cut]) -> dict:
        infeasible = False
        for cut in cuts:
            row = self.model.createEmptyRowUnspec("qpm", lhs=None, rhs=float(cut.right), removable=True)
            self.model.cacheRowExtensions(row)
            for variable, coefficient in self.terms(cut):
                self.model.addVarToRow(row, variable, coefficient)
            self.model.flushRowExtensions(row)
            infeasible |= bool(self.model.addCut(row, forcecut=True))
            self.model.releaseRow(row)
        return {"result": SCIP_RESULT.CUTOFF if infeasible else SCIP_RESULT.SEPARATED}

    @_guarded
    def conssepalp(self, constraints: list, nusefulconss: int) -> dict:
        """Called by SCIP for a fractional LP solution."""
        point = self.point()
        cuts = class_cuts(self.problem, point, self.order, 1e-4) + pair_rows(self.problem, point, 1e-4)
        cuts += clique_cuts(self.problem, point, 1e-2) + unlike_cuts(self.problem, point, self.order, 1e-3)
        cuts += sharing_cuts(self.problem, point, 1e-3)
        return self._add(cuts) if cuts else {"result": SCIP_RESULT.DIDNOTFIND}

    @_guarded
    def consenfolp(self, constraints: list, nusefulconss: int, solinfeasible: bool) -> dict:
        """Called by SCIP for an integral LP solution."""
        point = self.point()
        cuts = class_cuts(self.problem, point, self.order, _TOLERANCE) + pair_rows(self.problem, point, _TOLERANCE)
        cuts = (
            cuts
            or sharing_cuts(self.problem, point, _TOLERANCE)
            or whole_cuts(self.problem, point, self.order, _TOLERANCE * 10)
        )
        return self._add(cuts) if cuts else {"result": SCIP_RESULT.FEASIBLE}

    def consenfops(self, constraints: list, nusefulconss: int, solinfeasible: bool, objinfeasible: bool) -> dict:
        """Called by SCIP when the LP was not solved: ask for it."""
        return {"result": SCIP_RESULT.SOLVELP}

    @_guarded
    def conscheck(
        self,
        constraints: list,
        solution: object,
        checkintegrality: bool,
        checklprows: bool,
        printreason: bool,
        completely: bool,
    ) -> dict:
        """Called by SCIP for every candidate solution."""
        point = self.point(solution)
        chosen = point.s > 0.5
        whole = np.abs(point.s - chosen).max() < 1e-4 and chosen.sum() == self.problem.n
        fits = whole and self._is_consistent(chosen, point)
        return {"result": SCIP_RESULT.FEASIBLE if fits else SCIP_RESULT.INFEASIBLE}

    def _is_consistent(self, chosen: np.ndarray, point: Point) -> bool:
        _, bound = class_bounds(self.problem, chosen.astype(float), self.order)
        if (point.theta > bound + 1e-5).any():
            return False
        both = np.outer(chosen, chosen) & (self.problem.redundancy > 0)
        if (point.paid[both] < 1 - 1e-5).any():
            return False
        return bool(point.theta.sum() <= bound.sum() - assign(self.problem, np.flatnonzero(chosen)).loss + 1e-4)

    def conslock(self, constraint: object, locktype: int, nlockspos: int, nlocksneg: int) -> None:
        """Tell SCIP in which directions a change of a variable can hurt."""
        both = nlockspos + nlocksneg
        for v in self.s:
            self.model.addVarLocksType(v, locktype, both, both)
        for v in self.theta:
            self.model.addVarLocksType(v, locktype, nlocksneg, nlockspos)
        for v in self.y:
            self.model.addVarLocksType(v, locktype, nlockspos, nlocksneg)


class _Watch(pyscipopt.Eventhdlr):
    """Reports incumbent and bound whenever a node is solved or a solution found."""

    def __init__(self, report: Callable[[float, float], None], trouble: list[BaseException]) -> None:
        self.report, self.trouble = report, trouble

    def eventinit(self) -> None:
        """Called by SCIP before the search."""
        for kind in (SCIP_EVENTTYPE.NODESOLVED, SCIP_EVENTTYPE.BESTSOLFOUND):
            self.model.catchEvent(kind, self)

    def eventexit(self) -> None:
        """Called by SCIP after the search."""
        for kind in (SCIP_EVENTTYPE.NODESOLVED, SCIP_EVENTTYPE.BESTSOLFOUND):
            self.model.dropEvent(kind, self)

    @_guarded
    def eventexec(self, event: object) -> None:
        """Called by SCIP at each event."""
        self.report(float(self.model.getPrimalbound()), float(self.model.getDualbound()))


def _build(problem: SelectionProblem, seed: int, time_limit: float, gap: float) -> tuple[pyscipopt.Model, _Handler]:
    model = pyscipopt.Model("qpm")
    model.hideOutput()
    settings = {
        "limits/time": max(time_limit, 0.01),
        "randomization/randomseedshift": seed % 2**31,
        "misc/allowstrongdualreds": False,
        "misc/allowweakdualreds": False,
        "presolving/maxrounds": 0,
        "separating/maxroundsroot": 200,
        "separating/maxrounds": 5,
        "limits/gap": gap,
        "branching/relpscost/initcand": 8,
        "branching/relpscost/maxlookahead": 4,
        "branching/relpscost/sbiterquot": 0.2,
        "branching/relpscost/sbiterofs": 1000,
    }
    model.setParams(settings)
    top = np.sort(problem.value, axis=0)[-problem.k :].sum(0)
    lower = np.zeros(problem.n_candidates)
    lower[problem.required] = 1.0
    handler = _Handler(problem)
    s = [
        model.addVar(vtype="B", lb=lower[f], obj=float(problem.bias[f]), name=f"s{f}")
        for f in range(problem.n_candidates)
    ]
    theta = [
        model.addVar(vtype="C", lb=None, ub=float(top[c]), obj=1.0, name=f"theta{c}") for c in range(problem.n_classes)
    ]
    y = [
        model.addVar(vtype="C", lb=0.0, ub=1.0, obj=-float(problem.redundancy[i, j]), name=f"y{i}_{j}")
        for i, j in handler.pairs
    ]
    model.setMaximize()
    model.addCons(pyscipopt.quicksum(s) == problem.n)
    handler.bind(s, theta, y)
    options = {
        "sepapriority": 1000,
        "enfopriority": -1,
        "chckpriority": -1,
        "sepafreq": 1,
        "propfreq": -1,
        "eagerfreq": -1,
        "maxprerounds": 0,
        "needscons": False,
    }
    model.includeConshdlr(handler, "qpm_cuts", "class values, pairs, cliques and different class sets", **options)
    return model, handler


def _submit(model: pyscipopt.Model, handler: _Handler, candidate: Candidate) -> None:
    """Give SCIP the heuristic's selection as its first solution."""
    problem, solution = handler.problem, model.createSol()
    matrix = assign(problem, candidate.features).matrix
    values = (problem.value[candidate.features].T * matrix).sum(1)
    chosen = np.zeros(problem.n_candidates, bool)
    chosen[candidate.features] = True
    for f in candidate.features:
        model.setSolVal(solution, handler.s[f], 1.0)
    for c, v in enumerate(values):
        model.setSolVal(solution, handler.theta[c], float(v))
    for p in np.flatnonzero(chosen[handler.pairs].all(1)):
        model.setSolVal(solution, handler.y[p], 1.0)
    model.addSol(solution)


def prove(
    problem: SelectionProblem,
    start: Candidate,
    *,
    cuts: list[Cut] | None = None,
    gap: float = 0.0,
    time_limit: float = 600.0,
    seed: int = 0,
    on_progress: Callable[[float, float], None] = lambda objective, bound: None,
) -> Proof:
    """Improve a selection and bound every other one.

    Parameters
    ----------
    start : a selection, usually the heuristic's. cuts : known to be tight, to begin with.
    gap : stop when (bound - objective) / |objective| is at most this.
    on_progress : called with incumbent and bound.
    """
    model, handler = _build(problem, seed, time_limit, gap)
    for cut in cuts or []:
        model.addCons(pyscipopt.quicksum(a * v for v, a in handler.terms(cut)) <= float(cut.right), removable=True)
    _submit(model, handler, start)
    model.includeEventhdlr(_Watch(on_progress, handler.trouble), "qpm_watch", "progress")
    model.optimize()
    if handler.trouble and not isinstance(handler.trouble[0], KeyboardInterrupt):
        raise handler.trouble[0]
    best, bound = start, float(model.getDualbound())
    if model.getNSols():
        solution = model.getBestSol()
        found = evaluate(problem, np.flatnonzero([model.getSolVal(solution, v) > 0.5 for v in handler.s]))
        best = found if found.objective > start.objective else start
    return Proof(best, max(bound, best.objective), str(model.getStatus()))
