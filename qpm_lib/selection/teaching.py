"""The quadratic programme as one would write it down, in cvxpy, solved by SCIP: for small instances and for reading."""

import time
from collections import Counter
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int

from qpm_lib.selection.problem import Selection, make_problem, problem_objective, relative_gap

_MAX_VARIABLES = 2000


def solve_readable(
    relevance: Float[np.ndarray, "features classes"],
    redundancy: Float[np.ndarray, "features features"] | None,
    *,
    n_features: int,
    n_per_class: int,
    bias: Float[np.ndarray, "features"] | None = None,
    required: Sequence[int] | Int[np.ndarray, "r"] = (),
    forbidden: Sequence[int] | Int[np.ndarray, "q"] = (),
    pair_constraints: Sequence[tuple[int, int]] = (),
    time_limit: float = 600.0,
) -> Selection:
    """The same problem and the same optimum as `solve`, for instances of up to 2000 class weights.

    Products of binaries are linearised: y_ij >= s_i + s_j - 1 stands for s_i s_j. Classes are made different round by round: solve,
    forbid every set that two classes share to all but one of them, solve again.

    Raises
    ------
    ValueError : for input that cannot be solved, or an instance that is too large for this form.
    RuntimeError : when SCIP finds no solution within the time limit.
    """
    import cvxpy as cp

    problem = make_problem(
        relevance,
        redundancy,
        n_features=n_features,
        n_per_class=n_per_class,
        bias=bias,
        required=required,
        forbidden=forbidden,
        pair_constraints=pair_constraints,
    )
    f, c = problem.value.shape
    if f * c > _MAX_VARIABLES:
        raise ValueError(f"{f} features x {c} classes exceed {_MAX_VARIABLES} class weights: use qpm_lib.selection.solve")
    began = time.monotonic()
    pairs = np.argwhere(np.triu(problem.redundancy, 1) > 0)
    s, w = cp.Variable(f, boolean=True), cp.Variable((f, c), boolean=True)
    gain = cp.sum(cp.multiply(problem.value, w)) + problem.bias @ s
    constraints = [cp.sum(s) == problem.n, cp.sum(w, axis=0) == problem.k, w <= s[:, None] @ np.ones((1, c))]
    constraints += [s[f] == 1 for f in problem.required] + [s[f] == 0 for f in problem.forbidden]
    for first, second in problem.sharing:
        common = cp.Variable(f)
        constraints += [common <= w[:, first], common <= w[:, second], cp.sum(common) >= problem.k - 1]
    if len(pairs):
        i, j = pairs.T
        y = cp.Variable(len(pairs), nonneg=True)
        gain -= problem.redundancy[i, j] @ y
        constraints.append(y >= s[i] + s[j] - 1)
    while True:
        model = cp.Problem(cp.Maximize(gain), constraints)
        model.solve(solver=cp.SCIP, scip_params={"limits/time": max(0.1, time_limit - (time.monotonic() - began))})
        if w.value is None:
            raise RuntimeError(f"SCIP found no solution within time_limit (={time_limit} s): use qpm_lib.selection.solve")
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
    bound = value if status == "optimal" else float("inf")
    return Selection(features, weights[features].T, value, bound, relative_gap(value, bound), time.monotonic() - began, status)
