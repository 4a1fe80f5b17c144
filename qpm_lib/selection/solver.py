"""`solve`: from relevance and redundancy to a selection with its proof."""

import logging
import time

import numpy as np
from jaxtyping import Float

from qpm_lib.selection import heuristic, scip
from qpm_lib.selection.assignment import assign
from qpm_lib.selection.problem import Selection, make_problem, problem_objective, relative_gap

log = logging.getLogger(__name__)
_OPTIMAL = 1e-6


def solve(
    relevance: Float[np.ndarray, "features classes"],
    redundancy: Float[np.ndarray, "features features"] | None,
    *,
    n_features: int,
    n_per_class: int,
    bias: Float[np.ndarray, "features"] | None = None,
    gap: float = 0.005,
    time_limit: float = 600.0,
    seed: int = 0,
) -> Selection:
    """Select `n_features` features and give `n_per_class` of them to every class, no two classes alike.

    maximise 1000 / (k C) sum A W + sum b s - sum_{i<j} R_ij s_i s_j (QPM, arXiv 2502.20130). A heuristic finds a good selection, SCIP
    improves it and proves a bound. Same inputs and seed: same answer, unless the time limit ends the search.

    Parameters
    ----------
    relevance : A (F, C). redundancy : R (F, F), symmetric, zero for pairs that are not penalised, each unordered pair counted once.
    bias : b (F,), added for each selected feature.
    gap : stop when the proven gap is at most this; 0 asks for proven optimality. time_limit : seconds.

    Returns
    -------
    The best selection found with its bound; a time limit or Ctrl-C ends the search, not the result.

    Raises
    ------
    ValueError : for input that cannot be solved (see `make_problem`). The caller's arrays are never changed.
    """
    if not time_limit > 0 or not gap >= 0:
        raise ValueError(f"time_limit (={time_limit}) must be above 0 and gap (={gap}) at least 0")
    began = time.monotonic()
    problem = make_problem(relevance, redundancy, n_features=n_features, n_per_class=n_per_class, bias=bias)
    start = heuristic.search(problem, seed=seed, time_limit=time_limit / 3)
    log.info("heuristic: %.4f after %.1f s", start.objective, time.monotonic() - began)
    proof = scip.prove(problem, start, gap=gap, time_limit=time_limit - (time.monotonic() - began), seed=seed)
    features = np.sort(proof.candidate.features)
    assignment = assign(problem, features).matrix
    value = problem_objective(problem, features, assignment)
    proven = relative_gap(value, proof.bound)
    status = (
        "optimal" if proven <= _OPTIMAL else "gap" if proven <= gap else "interrupted" if proof.status == "userinterrupt" else "time_limit"
    )
    return Selection(features, assignment, value, max(proof.bound, value), proven, time.monotonic() - began, status)
