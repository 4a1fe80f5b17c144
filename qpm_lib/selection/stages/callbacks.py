"""What SCIP calls during branch and cut: separation and checks of what its model leaves out, and news of the search."""

import functools
from collections.abc import Callable

import numpy as np
import pyscipopt
from pyscipopt import SCIP_EVENTTYPE, SCIP_RESULT

from qpm_lib.selection.problem import SelectionProblem
from qpm_lib.selection.stages.assignment import assign
from qpm_lib.selection.stages.class_sets import sharing_cuts, unlike_cuts, whole_cuts
from qpm_lib.selection.stages.cuts import Cut, Point, class_bounds, class_cuts, clique_cuts, descending, pair_rows

_TOLERANCE = 1e-6


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


class Separator(pyscipopt.Conshdlr):
    """Separates, enforces and checks what the model leaves out."""

    def __init__(self, problem: SelectionProblem) -> None:
        self.trouble: list[BaseException] = []
        self.problem, self.order = problem, descending(problem)
        self.pairs = np.argwhere(np.triu(problem.redundancy, 1) > 0)
        self.pair_of = {pair: p for p, pair in enumerate(map(tuple, self.pairs.tolist()))}

    def bind(self, s: list, theta: list, y: list, alike: list) -> None:
        """Take the variables of the model."""
        self.s, self.theta, self.y, self.alike = s, theta, y, alike

    def point(self, solution: object = None) -> Point:
        """Values of a solution, by default of the current linear programme."""
        read = self.model.getSolVal
        groups = self.s, self.theta, self.y, self.alike
        s, theta, y, alike = (np.array([read(solution, v) for v in group]) for group in groups)
        paid = np.zeros_like(self.problem.redundancy)
        if len(y):
            i, j = self.pairs.T
            paid[i, j] = paid[j, i] = y
        return Point(np.clip(s, 0, 1), theta, paid, alike)

    def terms(self, cut: Cut) -> list[tuple]:
        """The left side of sum theta - w y - a s - u z <= right."""
        terms = [(self.theta[c], 1.0) for c in cut.classes]
        terms += [(self.s[f], -float(a)) for f, a in zip(cut.features, cut.coefficients, strict=True)]
        terms += [(self.alike[q], -float(u)) for q, u in zip(cut.links, cut.similar, strict=True)]
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
        return bool(point.theta.sum() <= bound.sum() - assign(self.problem, np.flatnonzero(chosen)).least + 1e-4)

    def conslock(self, constraint: object, locktype: int, nlockspos: int, nlocksneg: int) -> None:
        """Tell SCIP in which directions a change of a variable can hurt."""
        both = nlockspos + nlocksneg
        for v in self.s:
            self.model.addVarLocksType(v, locktype, both, both)
        for v in self.theta:
            self.model.addVarLocksType(v, locktype, nlocksneg, nlockspos)
        for v in self.y:
            self.model.addVarLocksType(v, locktype, nlockspos, nlocksneg)
        for v in self.alike:
            self.model.addVarLocksType(v, locktype, both, both)


class Watch(pyscipopt.Eventhdlr):
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
