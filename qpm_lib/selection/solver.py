"""`solve`: from relevance and redundancy to a selection with its proof."""

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from qpm_lib.core import whole_number
from qpm_lib.selection.problem import SelectionProblem, make_problem, problem_objective
from qpm_lib.selection.result import Selection, relative_gap
from qpm_lib.selection.stages import heuristic, scip
from qpm_lib.selection.stages.assignment import assign, is_exact
from qpm_lib.selection.stages.bounds import RootBound, root_bound
from qpm_lib.selection.stages.cuts import Cut
from qpm_lib.selection.stages.heuristic import Candidate
from qpm_lib.selection.stages.tree import split_bound

log = logging.getLogger(__name__)
_OPTIMAL = 1e-6
_LOG_EVERY = 5.0
_SCIP_WORK = 500.0  # relative gap x features x classes: above it SCIP does not move the bound in minutes


class Progress(NamedTuple):
    """How far a solve is: seconds so far, best selection, proven bound, gap, and what is at work."""

    seconds: float
    objective: float
    bound: float
    gap: float
    stage: str


class _Search:
    """What is known so far: the best selection and the lowest bound; tells it to whoever listens."""

    def __init__(
        self,
        problem: SelectionProblem,
        listen: Callable[[Progress], None] | None,
        start: Int[np.ndarray, "n"] | None = None,
    ) -> None:
        self.problem, self.listen = problem, listen
        self.began = self.logged = time.monotonic()
        self.stage, self.status = "heuristic", ""
        top = np.sort(problem.value, axis=0)[-problem.k :].sum() + np.sort(problem.bias)[-problem.n :].sum()
        self.bound = float(top)
        first = [heuristic.greedy(problem)] + ([] if start is None else [start])
        self.best = max((heuristic.evaluate(problem, f) for f in first), key=lambda c: c.objective)

    def tell(self, candidate: Candidate | None = None, bound: float = np.inf, *, objective: float = -np.inf) -> None:
        """Take in news; `objective` is that of a selection still inside the solver."""
        if candidate is not None and candidate.objective > self.best.objective:
            self.best = candidate
        self.bound = min(self.bound, bound)
        best = max(self.best.objective, objective)
        top = max(self.bound, best)
        news = Progress(time.monotonic() - self.began, best, top, relative_gap(best, top), self.stage)
        if time.monotonic() - self.logged > _LOG_EVERY:
            self.logged = time.monotonic()
            log.info(
                "%6.1f s  %s: objective %.4f, bound %.4f, gap %.3f %%",
                news.seconds,
                news.stage,
                best,
                top,
                100 * news.gap,
            )
        if self.listen:
            self.listen(news)


def _moved(cut: Cut, position: Int[np.ndarray, "features"]) -> Cut:
    """The cut on the features that are left; the others are not selected."""
    inside = position[cut.features] >= 0
    pairs = [
        (int(position[i]), int(position[j]), w)
        for (i, j), w in zip(cut.pairs, cut.weights, strict=True)
        if position[i] >= 0 and position[j] >= 0
    ]
    return cut._replace(
        features=position[cut.features[inside]],
        coefficients=cut.coefficients[inside],
        pairs=tuple((i, j) for i, j, _ in pairs),
        weights=np.array([w for *_, w in pairs], float),
    )


def _close(search: _Search, root: RootBound, gap: float, time_limit: float, seed: int) -> None:
    """Branch and cut in SCIP on the features that a selection better than the wanted gap can hold;
    split first if that is hopeless.
    """
    problem, best = search.problem, search.best
    target = best.objective + gap * abs(best.objective)
    out, always = root.with_feature <= target, root.without_feature <= target
    out[best.features] = False
    out[problem.required] = False
    always[np.setdiff1d(np.arange(len(always)), best.features)] = False
    always[problem.required] = False
    excluded = max(root.with_feature[out].max(initial=-np.inf), root.without_feature[always].max(initial=-np.inf))
    kept = np.flatnonzero(~out)
    position = np.full(problem.n_candidates, -1)
    position[kept] = np.arange(len(kept))
    narrow = problem.restrict(kept)
    narrow = replace(narrow, required=np.union1d(narrow.required, position[always]))
    log.info("%d of %d features left, %d of them fixed", len(kept), problem.n_candidates, len(narrow.required))
    start, cuts = Candidate(position[best.features], best.objective), [_moved(cut, position) for cut in root.cuts]
    work = (search.bound - target) / abs(best.objective) * narrow.value.size
    if work > _SCIP_WORK or not is_exact(problem):
        search.stage = "splitting"
        stop = time.monotonic() + time_limit
        split = split_bound(
            narrow,
            start,
            cuts=cuts,
            bound=search.bound,
            gap=gap,
            has_time=lambda: time.monotonic() < stop,
            on_progress=lambda found, bound: search.tell(
                Candidate(kept[found.features], found.objective), max(bound, excluded)
            ),
        )
        search.tell(Candidate(kept[split.candidate.features], split.candidate.objective), max(split.value, excluded))
        return
    search.stage = "branch and cut"
    proof = scip.prove(
        narrow,
        start,
        cuts=cuts,
        gap=gap,
        time_limit=time_limit,
        seed=seed,
        on_progress=lambda objective, bound: search.tell(bound=max(bound, excluded), objective=objective),
    )
    search.status = proof.status
    search.tell(Candidate(kept[proof.candidate.features], proof.candidate.objective), max(proof.bound, excluded))


def _run(search: _Search, gap: float, time_limit: float, seed: int) -> None:
    problem = search.problem

    def left() -> float:
        return time_limit - (time.monotonic() - search.began)

    search.tell()
    search.tell(heuristic.search(problem, seed=seed, time_limit=time_limit / 3))
    search.stage = "cutting planes"
    target = search.best.objective + gap * abs(search.best.objective)
    root = root_bound(
        problem, target=target, time_limit=left() / 3, seed=seed, on_round=lambda bound, _: search.tell(bound=bound)
    )
    rounded = np.sort(np.argsort(-root.point.s, kind="stable")[: problem.n])
    search.tell(heuristic.improve(problem, rounded, seed=seed, time_limit=max(0.0, left() / 3)), root.value)
    if relative_gap(search.best.objective, search.bound) > max(gap, _OPTIMAL) and left() > 0:
        _close(search, root, gap, left(), seed)


def solve(
    relevance: Float[np.ndarray, "features classes"],
    redundancy: Float[np.ndarray, "features features"] | None,
    *,
    n_features: int,
    n_per_class: int,
    bias: Float[np.ndarray, "features"] | None = None,
    required: Sequence[int] | Int[np.ndarray, "r"] = (),
    forbidden: Sequence[int] | Int[np.ndarray, "q"] = (),
    pair_constraints: Sequence[tuple[int, int]] = (),
    n_pairs: int | None = None,
    gap: float = 0.005,
    time_limit: float = 600.0,
    seed: int = 0,
    start: Sequence[int] | Int[np.ndarray, "n"] | None = None,
    on_progress: Callable[[Progress], None] | None = None,
) -> Selection:
    """Select `n_features` features and give `n_per_class` of them to every class, no two classes alike.

    maximise 1000 / (k C) sum A W + sum b s - sum_{i<j} R_ij s_i s_j (QPM, arXiv 2502.20130).
    A heuristic finds a good selection, cutting planes bound every other one and rule features out,
    SCIP proves the rest. Same inputs and seed: same answer, unless the time limit ends the search.

    Parameters
    ----------
    relevance : A (F, C). redundancy : R (F, F), symmetric, zero for pairs that are not penalised,
        each unordered pair counted once.
    bias : b (F,), added for each selected feature; on the scale of the objective, in which a feature is worth about
        1000 / n_features times its mean relevance to the classes that use it.
    required, forbidden : features that must and must not be selected.
    pair_constraints, n_pairs : pairs of classes of which at least `n_pairs` (None: all) must have n_per_class - 1
        features in common (CHiQPM, arXiv 2511.20779; see `similar_pairs`).
    gap : stop when the proven gap is at most this; 0 asks for proven optimality. time_limit : seconds.
    start : features of a selection that may be good already, such as that of the same programme with other wishes.
    on_progress : called with a `Progress` whenever something happens; it may raise KeyboardInterrupt to stop.

    Returns
    -------
    The best selection found with its bound; a time limit (`time_limit`) or Ctrl-C (`interrupted`) ends the search,
    not the result.

    Raises
    ------
    ValueError : for input that cannot be solved, or wishes that contradict each other (see `make_problem`).
        The caller's arrays are never changed.
    """
    _check_limits(gap, time_limit, seed)
    problem = make_problem(
        relevance,
        redundancy,
        n_features=n_features,
        n_per_class=n_per_class,
        bias=bias,
        required=required,
        forbidden=forbidden,
        pair_constraints=pair_constraints,
        n_pairs=n_pairs,
    )
    allowed = np.setdiff1d(np.arange(problem.n_candidates), problem.forbidden)
    search = _Search(problem.restrict(allowed), on_progress, heuristic.begin(problem, allowed, start))
    try:
        _run(search, gap, time_limit, seed)
    except KeyboardInterrupt:
        search.status = "userinterrupt"
    return _proven(problem, allowed, search, gap)


def _check_limits(gap: float, time_limit: float, seed: int) -> None:
    if not time_limit > 0 or not gap >= 0:
        raise ValueError(f"time_limit (={time_limit}) must be above 0 and gap (={gap}) at least 0")
    if whole_number("seed", seed) < 0:
        raise ValueError(f"seed (={seed}) must be at least 0")


def _proven(problem: SelectionProblem, allowed: Int[np.ndarray, "allowed"], search: _Search, gap: float) -> Selection:
    """The best selection of a search with its bound, in the numbers of the whole problem."""
    features = allowed[np.sort(search.best.features)]
    assignment = assign(problem, features).matrix
    value = problem_objective(problem, features, assignment)
    proven = relative_gap(value, search.bound)
    interrupted = search.status == "userinterrupt"
    status = (
        "optimal" if proven <= _OPTIMAL else "gap" if proven <= gap else "interrupted" if interrupted else "time_limit"
    )
    log.info("%s: objective %.4f, bound %.4f", status, value, search.bound)
    return Selection(
        features, assignment, value, max(search.bound, value), proven, time.monotonic() - search.began, status
    )
