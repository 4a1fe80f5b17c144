"""Proof by branch and cut in SCIP.

Benders form: binary s_f selects features, theta_c is the value of class c, y_ij >= s_i + s_j - 1 pays for a penalised pair.
The class weights W are not in the model. What they imply is separated when it is violated:

- value of a class, for any l: theta_c <= k l + sum_f max(0, V_fc - l) s_f;
- cliques of penalised pairs: sum of y over the clique >= m sum s - m (m + 1) / 2;
- classes that would share a set: at most one class of a group uses that set.
"""

import logging
import time
from typing import NamedTuple

import numpy as np
import pyscipopt
from jaxtyping import Bool, Int
from pyscipopt import SCIP_RESULT

from qpm_lib.selection.assignment import assign
from qpm_lib.selection.cuts import Cut, class_cuts, duplicate_cuts, filled_weights, pair_cut
from qpm_lib.selection.heuristic import Candidate, evaluate
from qpm_lib.selection.problem import SelectionProblem

log = logging.getLogger(__name__)
_TOLERANCE = 1e-6
_MAX_PAIR_ROWS, _MAX_CLIQUES = 300, 40


class Proof(NamedTuple):
    """What SCIP found: the best selection, an upper bound on every selection, and how the search ended."""

    candidate: Candidate
    bound: float
    status: str


class _Handler(pyscipopt.Conshdlr):
    """Separates, enforces and checks what the model leaves out."""

    def __init__(self, problem: SelectionProblem, pairs: Int[np.ndarray, "pairs 2"]) -> None:
        self.problem, self.pairs = problem, pairs
        self.order = np.argsort(-problem.value, axis=0, kind="stable")
        self.linked = problem.redundancy > 0
        self.pair_of = np.full(problem.redundancy.shape, -1)
        self.pair_of[pairs[:, 0], pairs[:, 1]] = self.pair_of[pairs[:, 1], pairs[:, 0]] = np.arange(len(pairs))

    def bind(self, s: list, theta: list, y: list) -> None:
        """Take the variables of the model."""
        self.s, self.theta, self.y = s, theta, y

    def _values(self, solution: object) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        read = self.model.getSolVal
        return tuple(np.array([read(solution, v) for v in group]) for group in (self.s, self.theta, self.y))

    def _add(self, terms: list[tuple], *, lhs: float | None = None, rhs: float | None = None) -> bool:
        row = self.model.createEmptyRowUnspec("qpm", lhs=lhs, rhs=rhs, removable=True)
        self.model.cacheRowExtensions(row)
        for variable, coefficient in terms:
            self.model.addVarToRow(row, variable, float(coefficient))
        self.model.flushRowExtensions(row)
        infeasible = self.model.addCut(row, forcecut=True)
        self.model.releaseRow(row)
        return bool(infeasible)

    def _add_cut(self, cut: Cut) -> bool:
        terms = [(self.theta[c], 1.0) for c in cut.classes] + [(self.s[f], -cut.coefficients[f]) for f in np.flatnonzero(cut.coefficients)]
        return self._add(terms, rhs=cut.right)

    def _separate(self, *, tolerance: float, integral: bool) -> tuple[int, bool]:
        """Add violated rows for the current LP solution: (how many, whether one proved the node infeasible)."""
        s, theta, y = self._values(None)
        s = np.clip(s, 0, 1)
        level, value = class_cuts(self.problem, s, self.order)
        cuts = [
            Cut([c], np.maximum(self.problem.value[:, c] - level[c], 0), self.problem.k * level[c])
            for c in np.flatnonzero(theta - value > tolerance)
        ]
        infeasible = any([self._add_cut(cut) for cut in cuts])
        added = len(cuts)
        if len(self.pairs):
            i, j = self.pairs.T
            violation = (s[i] + s[j] - 1 - y) * self.problem.redundancy[i, j]
            worst = np.argsort(-violation)[:_MAX_PAIR_ROWS]
            for p in worst[violation[worst] > tolerance]:
                infeasible |= self._add([(self.y[p], 1.0), (self.s[i[p]], -1.0), (self.s[j[p]], -1.0)], lhs=-1.0)
                added += 1
            if not integral:
                for clique, m in self._cliques(s, y):
                    terms = [(self.y[self.pair_of[a, b]], 1.0) for q, a in enumerate(clique) for b in clique[q + 1 :]]
                    infeasible |= self._add(terms + [(self.s[a], -m) for a in clique], lhs=-m * (m + 1) / 2)
                    added += 1
        for cut in self._pair_cuts(s, theta, tolerance):
            infeasible |= self._add_cut(cut)
            added += 1
        if integral and not added:
            for cut in self._unlike_cuts(s, theta):
                infeasible |= self._add_cut(cut)
                added += 1
        return added, infeasible

    def _cliques(self, s: np.ndarray, y: np.ndarray) -> list[tuple[list[int], int]]:
        """Violated clique inequalities, grown greedily from every selected feature."""
        paid = np.zeros_like(self.problem.redundancy)
        paid[self.pairs[:, 0], self.pairs[:, 1]] = paid[self.pairs[:, 1], self.pairs[:, 0]] = y
        support, found = np.flatnonzero(s > 1e-6), {}
        for start in support:
            clique, rest = [int(start)], support[self.linked[start, support]]
            score = s[rest] - paid[start, rest]
            while len(rest) and score.max() > 1e-7:
                pick = rest[int(score.argmax())]
                clique.append(int(pick))
                near = self.linked[pick, rest]
                score = (score - paid[pick, rest])[near]
                rest = rest[near]
            weight = s[clique].sum()
            m = max(1, int(weight))
            violation = m * weight - m * (m + 1) / 2 - paid[np.ix_(clique, clique)].sum() / 2
            if len(clique) > 2 and violation > 1e-2:
                found[tuple(sorted(clique)), m] = violation
        ranked = sorted(found, key=lambda key: -found[key])[:_MAX_CLIQUES]
        return [(list(clique), m) for clique, m in ranked]

    def _pair_cuts(self, s: np.ndarray, theta: np.ndarray, tolerance: float) -> list[Cut]:
        """Violated cuts of the class pairs that would share more than k - 1 features."""
        weights, support = filled_weights(self.problem, s, self.order), s > 1e-9
        inside, available = weights[support], s[support]
        cuts = []
        for c in range(self.problem.n_classes - 1):
            shared = np.maximum(inside[:, [c]] + inside[:, c + 1 :] - available[:, None], 0).sum(0)
            for d in np.flatnonzero(shared > self.problem.k - 1 + 1e-6) + c + 1:
                cut, value = pair_cut(self.problem, s, c, int(d))
                if theta[c] + theta[d] > value + tolerance * 10:
                    cuts.append(cut)
        return cuts

    def _unlike_cuts(self, s: np.ndarray, theta: np.ndarray) -> list[Cut]:
        """Cuts that remove an integral point whose class values need equal sets."""
        chosen = s > 0.5
        features = np.flatnonzero(chosen)
        _, value = class_cuts(self.problem, chosen.astype(float), self.order)
        loss = assign(self.problem, features).loss
        if theta.sum() <= value.sum() - loss + _TOLERANCE * 10:
            return []
        cuts = [
            cut
            for cut in duplicate_cuts(self.problem, features)
            if theta[cut.classes].sum() > cut.right + cut.coefficients @ s + _TOLERANCE * 10
        ]
        if cuts:
            return cuts
        level, _ = class_cuts(self.problem, chosen.astype(float), self.order)
        coefficients = np.maximum(self.problem.value - level, 0).sum(1) - loss * chosen
        return [Cut(list(range(self.problem.n_classes)), coefficients, self.problem.k * level.sum() + loss * (self.problem.n - 1))]

    def conssepalp(self, constraints: list, nusefulconss: int) -> dict:
        """Called by SCIP for a fractional LP solution."""
        added, infeasible = self._separate(tolerance=1e-4, integral=False)
        return {"result": SCIP_RESULT.CUTOFF if infeasible else SCIP_RESULT.SEPARATED if added else SCIP_RESULT.DIDNOTFIND}

    def consenfolp(self, constraints: list, nusefulconss: int, solinfeasible: bool) -> dict:
        """Called by SCIP for an integral LP solution."""
        added, infeasible = self._separate(tolerance=_TOLERANCE, integral=True)
        return {"result": SCIP_RESULT.CUTOFF if infeasible else SCIP_RESULT.SEPARATED if added else SCIP_RESULT.FEASIBLE}

    def consenfops(self, constraints: list, nusefulconss: int, solinfeasible: bool, objinfeasible: bool) -> dict:
        """Called by SCIP when the LP was not solved: ask for it."""
        return {"result": SCIP_RESULT.SOLVELP}

    def conscheck(
        self, constraints: list, solution: object, checkintegrality: bool, checklprows: bool, printreason: bool, completely: bool
    ) -> dict:
        """Called by SCIP for every candidate solution."""
        s, theta, y = self._values(solution)
        features = np.flatnonzero(s > 0.5)
        whole = np.abs(s - np.round(s)).max() < 1e-4 and len(features) == self.problem.n
        return {"result": SCIP_RESULT.FEASIBLE if whole and self._is_consistent(s > 0.5, features, theta, y) else SCIP_RESULT.INFEASIBLE}

    def _is_consistent(
        self, chosen: Bool[np.ndarray, "features"], features: Int[np.ndarray, "n"], theta: np.ndarray, y: np.ndarray
    ) -> bool:
        _, value = class_cuts(self.problem, chosen.astype(float), self.order)
        if (theta > value + 1e-5).any():
            return False
        if len(self.pairs) and (chosen[self.pairs].all(1) & (y < 1 - 1e-5)).any():
            return False
        return bool(theta.sum() <= value.sum() - assign(self.problem, features).loss + 1e-4)

    def conslock(self, constraint: object, locktype: int, nlockspos: int, nlocksneg: int) -> None:
        """Tell SCIP in which directions a change of a variable can hurt."""
        both = nlockspos + nlocksneg
        for v in self.s:
            self.model.addVarLocksType(v, locktype, both, both)
        for v in self.theta:
            self.model.addVarLocksType(v, locktype, nlocksneg, nlockspos)
        for v in self.y:
            self.model.addVarLocksType(v, locktype, nlockspos, nlocksneg)


def _build(problem: SelectionProblem, seed: int, time_limit: float, gap: float) -> tuple[pyscipopt.Model, _Handler]:
    model = pyscipopt.Model("qpm")
    model.hideOutput()
    settings = {
        "limits/time": max(time_limit, 0.01),
        "limits/gap": gap,
        "randomization/randomseedshift": seed % 2**31,
        "misc/allowstrongdualreds": False,
        "misc/allowweakdualreds": False,
        "presolving/maxrounds": 0,
        "separating/maxroundsroot": 200,
        "separating/maxrounds": 5,
    }
    model.setParams(settings)
    pairs = np.argwhere(np.triu(problem.redundancy, 1) > 0)
    top = np.sort(problem.value, axis=0)[-problem.k :].sum(0)
    s = [model.addVar(vtype="B", obj=float(problem.bias[f]), name=f"s{f}") for f in range(problem.n_candidates)]
    theta = [model.addVar(vtype="C", lb=None, ub=float(top[c]), obj=1.0, name=f"theta{c}") for c in range(problem.n_classes)]
    y = [model.addVar(vtype="C", lb=0.0, ub=1.0, obj=-float(problem.redundancy[i, j]), name=f"y{i}_{j}") for i, j in pairs]
    model.setMaximize()
    model.addCons(pyscipopt.quicksum(s) == problem.n)
    handler = _Handler(problem, pairs)
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


def prove(problem: SelectionProblem, start: Candidate, *, gap: float = 0.0, time_limit: float = 600.0, seed: int = 0) -> Proof:
    """Improve a selection and bound every other one.

    Parameters
    ----------
    start : a selection, usually the heuristic's. gap : stop when (bound - objective) / |objective| is at most this.
    """
    began = time.monotonic()
    model, handler = _build(problem, seed, time_limit, gap)
    _submit(model, handler, start)
    model.optimize()
    best, bound = start, float(model.getDualbound())
    if model.getNSols():
        solution = model.getBestSol()
        features = np.flatnonzero([model.getSolVal(solution, v) > 0.5 for v in handler.s])
        found = evaluate(problem, features)
        best = found if found.objective > start.objective else start
    status = str(model.getStatus())
    log.info(
        "SCIP: %s after %.1f s and %d nodes, objective %.4f, bound %.4f",
        status,
        time.monotonic() - began,
        model.getNNodes(),
        best.objective,
        bound,
    )
    return Proof(best, max(bound, best.objective), status)
