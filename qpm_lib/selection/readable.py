"""The quadratic programme as one would write it down: in cvxpy for reading, and straight into SCIP to see how far that
goes.
"""

import time
from collections import Counter
from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Float

from qpm_lib.selection.problem import SelectionProblem, make_problem, problem_objective
from qpm_lib.selection.result import Selection, relative_gap

_MAX_VARIABLES = 2000


def solve_readable(
    relevance: Float[np.ndarray, "features classes"],
    redundancy: Float[np.ndarray, "features features"] | None,
    *,
    time_limit: float = 600.0,
    **options: object,
) -> Selection:
    """The same problem and the same optimum as `solve`, for instances of up to 2000 class weights.

    Products of binaries are linearised: y_ij >= s_i + s_j - 1 stands for s_i s_j. Classes are made different round by
    round: solve, forbid every set that two classes share to all but one of them, solve again.

    Parameters
    ----------
    options : n_features, n_per_class and wishes, as for `make_problem`.

    Raises
    ------
    ValueError : for input that cannot be solved, or an instance that is too large for this form.
    RuntimeError : when SCIP finds no solution within the time limit.
    """
    import cvxpy as cp

    problem, began = make_problem(relevance, redundancy, **options), time.monotonic()
    f, c = problem.value.shape
    if f * c > _MAX_VARIABLES:
        raise ValueError(
            f"{f} features x {c} classes exceed {_MAX_VARIABLES} class weights: use qpm_lib.selection.solve"
        )
    s, w = cp.Variable(f, boolean=True), cp.Variable((f, c), boolean=True)
    gain, constraints = _written_down(problem, s, w)
    while True:
        model = cp.Problem(cp.Maximize(gain), constraints)
        model.solve(solver=cp.SCIP, scip_params={"limits/time": max(0.1, time_limit - (time.monotonic() - began))})
        if w.value is None:
            raise RuntimeError(
                f"SCIP found no solution within time_limit (={time_limit} s): use qpm_lib.selection.solve"
            )
        weights = w.value > 0.5
        sets = Counter(tuple(np.flatnonzero(column).tolist()) for column in weights.T)
        if max(sets.values()) == 1:
            break
        for members in (subset for subset, classes in sets.items() if classes > 1):
            full = cp.Variable(c, boolean=True)
            constraints += [full >= cp.sum(w[list(members)], axis=0) - (problem.k - 1), cp.sum(full) <= 1]
    features = np.flatnonzero(s.value > 0.5)
    value = problem_objective(problem, features, weights[features].T)
    status = "optimal" if model.status == cp.OPTIMAL else "time_limit"
    bound = value if status == "optimal" else float(model.solver_stats.extra_stats.getDualbound())
    gap, seconds = relative_gap(value, bound), time.monotonic() - began
    return Selection(features, weights[features].T, value, bound, gap, seconds, status)


def _written_down(problem: SelectionProblem, s: Any, w: Any) -> tuple[Any, list[Any]]:
    """Objective and constraints in cvxpy, but for different sets of the classes; s (F,) and w (F, C)
    are binary variables.
    """
    import cvxpy as cp

    f, c = problem.value.shape
    gain = cp.sum(cp.multiply(problem.value, w)) + problem.bias @ s
    constraints = [cp.sum(s) == problem.n, cp.sum(w, axis=0) == problem.k, w <= s[:, None] @ np.ones((1, c))]
    constraints += [s[f] == 1 for f in problem.required] + [s[f] == 0 for f in problem.forbidden]
    alike = cp.Variable(len(problem.sharing), boolean=True) if problem.sharing else []
    for z, (first, second) in zip(alike, problem.sharing, strict=True):
        common = cp.Variable(f)
        constraints += [common <= w[:, first], common <= w[:, second], cp.sum(common) >= (problem.k - 1) * z]
    if problem.sharing:
        constraints.append(cp.sum(alike) >= problem.n_alike)
    pairs = np.argwhere(np.triu(problem.redundancy, 1) > 0)
    if len(pairs):
        i, j = pairs.T
        y = cp.Variable(len(pairs), nonneg=True)
        gain -= problem.redundancy[i, j] @ y
        constraints.append(y >= s[i] + s[j] - 1)
    return gain, constraints


class PlainResult(NamedTuple):
    """Best objective found (NaN if none), proven bound (infinite if none), their gap, and seconds."""

    objective: float
    bound: float
    gap: float
    seconds: float


def solve_plain(
    relevance: Float[np.ndarray, "features classes"],
    redundancy: Float[np.ndarray, "features features"] | None,
    *,
    n_features: int,
    n_per_class: int,
    form: Literal["bilinear", "compact"] = "bilinear",
    time_limit: float = 60.0,
) -> PlainResult:
    """The programme with all class weights as variables, given to SCIP as it is: to compare with, not to use.

    Classes may have the same set here, which only makes the problem easier.

    Parameters
    ----------
    form : `bilinear` as published (QPM, arXiv 2502.20130): products W s and s s. `compact`: W <= s and y_ij >= s_i +
        s_j - 1.
    time_limit : seconds, building the model included.
    """
    import pyscipopt

    began = time.monotonic()
    problem = make_problem(relevance, redundancy, n_features=n_features, n_per_class=n_per_class)
    f, c = problem.value.shape
    model, total = pyscipopt.Model(), pyscipopt.quicksum
    model.hideOutput()
    s = [model.addVar(vtype="B") for _ in range(f)]
    w = [[model.addVar(vtype="B") for _ in range(c)] for _ in range(f)]
    used = [[w[i][j] * s[i] if form == "bilinear" else w[i][j] for j in range(c)] for i in range(f)]
    model.addCons(total(s) == problem.n)
    for j in range(c):
        model.addCons(total(used[i][j] for i in range(f)) == problem.k)
    if form == "compact":
        for i in range(f):
            for j in range(c):
                model.addCons(w[i][j] <= s[i])
    gain = [float(problem.value[i, j]) * used[i][j] for i in range(f) for j in range(c)]
    for i, j in np.argwhere(np.triu(problem.redundancy, 1) > 0):
        pair = s[i] * s[j]
        if form == "compact":
            pair = model.addVar(lb=0, ub=1)
            model.addCons(pair >= s[i] + s[j] - 1)
        gain.append(-float(problem.redundancy[i, j]) * pair)
    objective = model.addVar(lb=None)
    model.addCons(objective <= total(gain))
    model.setObjective(objective, "maximize")
    model.setParam("limits/time", max(1.0, time_limit - (time.monotonic() - began)))
    model.optimize()
    found, bound = float(model.getPrimalbound()) if model.getNSols() else float("nan"), float(model.getDualbound())
    bound = float("inf") if model.isInfinity(bound) else bound
    return PlainResult(
        found, bound, relative_gap(found, bound) if model.getNSols() else float("inf"), time.monotonic() - began
    )
