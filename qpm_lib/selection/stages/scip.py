"""Proof by branch and cut in SCIP.

Binary s_f selects features, theta_c is the value of class c, y_ij >= s_i + s_j - 1 pays for a penalised pair.
Everything else is separated when it is violated (see `cuts`).
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pyscipopt

from qpm_lib.selection.problem import SelectionProblem
from qpm_lib.selection.stages.assignment import assign
from qpm_lib.selection.stages.callbacks import Separator, Watch
from qpm_lib.selection.stages.cuts import Cut
from qpm_lib.selection.stages.heuristic import Candidate, evaluate


class Proof(NamedTuple):
    """What SCIP found: the best selection, an upper bound on every selection, and how the search ended."""

    candidate: Candidate
    bound: float
    status: str


_SETTINGS = {
    "misc/allowstrongdualreds": False,
    "misc/allowweakdualreds": False,
    "presolving/maxrounds": 0,
    "separating/maxroundsroot": 200,
    "separating/maxrounds": 5,
    "branching/relpscost/initcand": 8,
    "branching/relpscost/maxlookahead": 4,
    "branching/relpscost/sbiterquot": 0.2,
    "branching/relpscost/sbiterofs": 1000,
}


def _build(problem: SelectionProblem, seed: int, time_limit: float, gap: float) -> tuple[pyscipopt.Model, Separator]:
    model = pyscipopt.Model("qpm")
    model.hideOutput()
    limits = {"limits/time": max(time_limit, 0.01), "limits/gap": gap, "randomization/randomseedshift": seed % 2**31}
    model.setParams({**_SETTINGS, **limits})
    top = np.sort(problem.value, axis=0)[-problem.k :].sum(0)
    lower = np.zeros(problem.n_candidates)
    lower[problem.required] = 1.0
    handler = Separator(problem)
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
    least = float(problem.all_alike)
    alike = [model.addVar(vtype="C", lb=least, ub=1.0, name=f"z{q}") for q in range(len(problem.sharing))]
    model.setMaximize()
    model.addCons(pyscipopt.quicksum(s) == problem.n)
    if alike:
        model.addCons(pyscipopt.quicksum(alike) >= problem.n_alike)
    handler.bind(s, theta, y, alike)
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


def _submit(model: pyscipopt.Model, handler: Separator, candidate: Candidate) -> None:
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
    for q, (c, d) in enumerate(problem.sharing):
        model.setSolVal(solution, handler.alike[q], float((matrix[c] & matrix[d]).sum() == problem.k - 1))
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
    for cut in (cut for cut in cuts or [] if cut.classes or cut.pairs):
        model.addCons(pyscipopt.quicksum(a * v for v, a in handler.terms(cut)) <= float(cut.right), removable=True)
    _submit(model, handler, start)
    model.includeEventhdlr(Watch(on_progress, handler.trouble), "qpm_watch", "progress")
    model.optimize()
    if handler.trouble and not isinstance(handler.trouble[0], KeyboardInterrupt):
        raise handler.trouble[0]
    best, bound = start, float(model.getDualbound())
    if model.getNSols():
        solution = model.getBestSol()
        found = evaluate(problem, np.flatnonzero([model.getSolVal(solution, v) > 0.5 for v in handler.s]))
        best = found if found.objective > start.objective else start
    return Proof(best, max(bound, best.objective), str(model.getStatus()))
