"""A good selection quickly: greedy start, swaps with all F x n gains by one matrix product, tabu search, restarts."""

import time
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from qpm_lib.selection.problem import SelectionProblem
from qpm_lib.selection.stages.assignment import assign, relaxed_objective
from qpm_lib.selection.stages.weaving import estimated_loss

_EPSILON = 1e-7
_TRIES = 200
_WIDE = 400


class Candidate(NamedTuple):
    """A feature set (ascending) and its exact value with different class sets."""

    features: Int[np.ndarray, "n"]
    objective: float


def greedy(problem: SelectionProblem, rng: np.random.Generator | None = None) -> Int[np.ndarray, "n"]:
    """The required features, then one after the other the feature that gains most; with a generator the gains are
    blurred by 10 %.
    """
    best = np.full((problem.k, problem.n_classes), min(0.0, problem.value.min()))
    penalty, chosen = np.zeros(problem.n_candidates), []
    for step in range(problem.n):
        gain = np.maximum(problem.value - best[-1], 0).sum(1) + problem.bias - penalty
        if rng is not None:
            gain = gain * (1 + 0.1 * rng.standard_normal(len(gain)))
        gain[chosen] = -np.inf
        pick = int(problem.required[step] if step < len(problem.required) else gain.argmax())
        chosen.append(pick)
        penalty += problem.redundancy[pick]
        best = -np.sort(-np.vstack([best, problem.value[pick]]), axis=0)[: problem.k]
    return np.array(chosen)


def begin(
    problem: SelectionProblem, allowed: Int[np.ndarray, "allowed"], start: Sequence[int] | Int[np.ndarray, "n"] | None
) -> Int[np.ndarray, "n"] | None:
    """The selection to begin with, as positions in what is allowed.

    Raises
    ------
    ValueError : when it is no selection of the problem.
    """
    if start is None:
        return None
    wanted = sorted({int(f) for f in start})
    if len(wanted) != problem.n or not set(problem.required) <= set(wanted) <= set(allowed.tolist()):
        raise ValueError(
            f"start (={wanted}) must be {problem.n} different features of 0 to {problem.n_candidates - 1}, with all "
            "that are required and none that is forbidden"
        )
    return np.searchsorted(allowed, wanted)


def swap_gains(problem: SelectionProblem, features: Int[np.ndarray, "n"]) -> Float[np.ndarray, "candidates n"]:
    """Change of the relaxed objective for taking in feature f (row) in the place of the j-th selected one (column).

    When a class loses one of its k best, the newcomer is worth its value clipped between the class's k-th and (k+1)-th
    value.
    """
    value, k = problem.value, problem.k
    inside = value[features]
    ranked = -np.sort(-inside, axis=0)
    kth = ranked[k - 1]
    following = ranked[k] if len(features) > k else np.full(problem.n_classes, value.min())
    rank = np.argsort(np.argsort(-inside, axis=0, kind="stable"), axis=0)
    uses = rank < k
    gains = np.clip(value, following, kth) @ uses.T
    gains += np.maximum(value - kth, 0).sum(1)[:, None] - (uses * inside).sum(1)[None]
    similar = problem.redundancy[:, features]
    gains += (problem.bias - similar.sum(1))[:, None] + similar
    gains += (similar[features].sum(1) - problem.bias[features])[None]
    gains[features] = -np.inf
    gains[:, np.isin(features, problem.required)] = -np.inf
    return gains


def _search(
    problem: SelectionProblem, start: Int[np.ndarray, "n"], patience: int, rng: np.random.Generator, stop: float
) -> Int[np.ndarray, "n"]:
    """Tabu search on the relaxed objective until `patience` moves brought nothing better; the best set seen."""
    features = start.copy()
    value = best_value = relaxed_objective(problem, features)
    best, tabu, stalled, move = features.copy(), np.zeros(problem.n_candidates, int), 0, 0
    while stalled < patience and time.monotonic() < stop:
        move += 1
        gains = swap_gains(problem, features)
        allowed = gains.copy()
        allowed[tabu > move] = -np.inf
        allowed[:, tabu[features] > move] = -np.inf
        if value + gains.max() > best_value + _EPSILON:
            allowed = gains
        inn, out = np.unravel_index(int(allowed.argmax()), allowed.shape)
        if not np.isfinite(allowed[inn, out]):
            break
        value += allowed[inn, out]
        tabu[features[out]], tabu[inn] = move + rng.integers(5, 12), move + rng.integers(3, 8)
        features[out] = inn
        stalled += 1
        if value > best_value + _EPSILON:
            best, best_value, stalled = features.copy(), value, 0
    return best


def evaluate(problem: SelectionProblem, features: Int[np.ndarray, "n"], *, quick: bool = False) -> Candidate:
    """A feature set with its exact value: what its classes are worth when their sets differ. `quick`: with the first
    good sets where some shall be similar.
    """
    features = np.sort(features)
    return Candidate(features, relaxed_objective(problem, features) - assign(problem, features, quick=quick).loss)


def _polish(problem: SelectionProblem, candidate: Candidate, stop: float) -> Candidate:
    """Swaps that improve the exact value, tried in the order of their relaxed gain until time `stop`;
    for sets whose classes clash. Where similar classes are asked for, an estimate stands for the exact value on the
    way.
    """
    features = candidate.features
    value = _estimate(problem, features) if problem.sharing else candidate.objective
    while time.monotonic() < stop:
        gains = swap_gains(problem, features)
        relaxed = relaxed_objective(problem, features)
        order = np.argsort(-gains, axis=None)[:_TRIES]
        for inn, out in zip(*np.unravel_index(order, gains.shape), strict=True):
            if relaxed + gains[inn, out] <= value + _EPSILON or time.monotonic() > stop:
                return _settled(problem, candidate, features)
            trial = np.sort(np.where(np.arange(problem.n) == out, inn, features))
            worth = _estimate(problem, trial)
            if worth > value + _EPSILON:
                features, value = trial, worth
                break
        else:
            break
    return _settled(problem, candidate, features)


def _estimate(problem: SelectionProblem, features: Int[np.ndarray, "n"]) -> float:
    """The exact value, or about that where similar classes are asked for."""
    if not problem.sharing:
        return evaluate(problem, features).objective
    links = np.array(problem.sharing, int)
    loss = estimated_loss(problem.value[features], problem.k, links, problem.n_alike)
    return relaxed_objective(problem, features) - loss


def _settled(problem: SelectionProblem, candidate: Candidate, features: Int[np.ndarray, "n"]) -> Candidate:
    if np.array_equal(features, candidate.features):
        return candidate
    return max(candidate, evaluate(problem, features, quick=True), key=lambda found: found.objective)


def search(
    problem: SelectionProblem, *, seed: int = 0, rounds: int | None = None, patience: int = 60, time_limit: float = 60.0
) -> Candidate:
    """Iterated tabu search.

    Parameters
    ----------
    rounds : restarts from a disturbed best set or a blurred greedy start; by default 12, fewer on instances above 512 x
        200. With the same seed and rounds the answer is the same, unless `time_limit` (seconds) ends it before.
    """
    rng = np.random.default_rng([seed, 23])
    stop = time.monotonic() + time_limit
    if rounds is None:
        rounds = int(np.clip(12 * 512 * 200 / problem.value.size, 1, 12))
    start = greedy(problem)
    if problem.n_candidates <= _WIDE:
        return _iterate(problem, start, rounds, patience, rng, stop)
    gains = swap_gains(problem, start).max(1)
    kept = np.union1d(np.argsort(-gains, kind="stable")[:_WIDE], np.union1d(start, problem.required))
    narrow = _iterate(problem.restrict(kept), np.searchsorted(kept, start), rounds, patience, rng, stop)
    return improve(problem, kept[narrow.features], seed=seed, time_limit=stop - time.monotonic())


def improve(
    problem: SelectionProblem, start: Int[np.ndarray, "n"], *, seed: int = 0, time_limit: float = 60.0
) -> Candidate:
    """The best set a short tabu search finds from a given one."""
    rng, stop = np.random.default_rng([seed, 31]), time.monotonic() + time_limit
    return _polish(problem, evaluate(problem, _search(problem, start, 10, rng, stop), quick=True), stop)


def _iterate(
    problem: SelectionProblem,
    start: Int[np.ndarray, "n"],
    rounds: int,
    patience: int,
    rng: np.random.Generator,
    stop: float,
) -> Candidate:
    best = evaluate(problem, _search(problem, start, patience, rng, stop), quick=True)
    if problem.n == problem.n_candidates:
        return best
    for round_ in range(rounds):
        if time.monotonic() > stop:
            break
        again = _disturbed(problem, best.features, rng) if round_ % 2 else greedy(problem, rng)
        trial = evaluate(problem, _search(problem, again, patience, rng, stop), quick=True)
        best = max(best, trial, key=lambda candidate: candidate.objective)
    return _polish(problem, best, stop)


def _disturbed(
    problem: SelectionProblem, features: Int[np.ndarray, "n"], rng: np.random.Generator
) -> Int[np.ndarray, "n"]:
    outside = np.setdiff1d(np.arange(problem.n_candidates), features)
    free = np.flatnonzero(~np.isin(features, problem.required))
    count = min(len(outside), len(free), int(rng.integers(1, max(2, problem.n // 4) + 1)))
    changed = features.copy()
    changed[rng.choice(free, count, replace=False)] = rng.choice(outside, count, replace=False)
    return changed
