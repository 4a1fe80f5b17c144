"""Instances of the quadratic programme, and the answer by trying everything."""

import itertools
import math

import numpy as np
from scipy.optimize import linear_sum_assignment

from qpm_lib.selection.problem import make_problem


def instance(seed, f=None, c=None, n=None, k=None):
    """A random instance in which twins are common and some pairs are penalised."""
    rng = np.random.default_rng(seed)
    f = f or int(rng.integers(4, 9))
    n = n or int(rng.integers(2, f + 1))
    k = k or int(rng.integers(1, n + 1))
    c = min(c or int(rng.integers(2, 7)), math.comb(n, k))
    a = rng.normal(size=(f, c))
    if c > 1 and rng.random() < 0.6:
        a[:, 1] = a[:, 0] + 0.05 * rng.normal(size=f) * (rng.random() < 0.5)
    r = np.triu(np.where(rng.random((f, f)) < 0.5, rng.random((f, f)) * 60, 0), 1)
    b = rng.normal(size=f) * 5 if rng.random() < 0.5 else None
    return a / np.abs(a).max(), r + r.T if rng.random() < 0.8 else None, {"n_features": n, "n_per_class": k, "bias": b}


def wishes(seed, f, c, n, k):
    """Random required and forbidden features, and pairs of classes that shall be alike."""
    rng = np.random.default_rng([seed, 1])
    order = rng.permutation(f)
    required, forbidden = int(rng.integers(0, min(n, 2) + 1)), int(rng.integers(0, min(f - n, 2) + 1))
    few = c > 1 and math.comb(n, k) <= 20
    pairs = (
        {tuple(sorted(rng.choice(c, 2, replace=False).tolist())) for _ in range(int(rng.integers(0, 4)))}
        if few
        else set()
    )
    chosen = {
        "required": order[:required].tolist(),
        "forbidden": order[f - forbidden :].tolist(),
        "pair_constraints": sorted(pairs) if few else [],
        "n_pairs": int(rng.integers(0, len(pairs) + 1)) if pairs and rng.random() < 0.6 else None,
    }
    return chosen if not set(chosen["required"]) & set(chosen["forbidden"]) else {**chosen, "forbidden": []}


def exhaustive(a, r, **options):
    """Every set of features; for each, every choice of sets for classes with a wish and the best assignment of sets to
    the others.
    """
    problem = make_problem(a, r, **options)
    subsets = list(itertools.combinations(range(problem.n), problem.k))
    wishing = sorted({c for pair in problem.sharing for c in pair})
    others = [c for c in range(problem.n_classes) if c not in wishing]
    choices = [
        dict(zip(wishing, choice, strict=True))
        for choice in itertools.permutations(range(len(subsets)), len(wishing))
        if problem.n_alike
        <= sum(
            len(set(subsets[choice[wishing.index(c)]]) & set(subsets[choice[wishing.index(d)]])) == problem.k - 1
            for c, d in problem.sharing
        )
    ]
    best = -np.inf
    for features in itertools.combinations(np.setdiff1d(np.arange(problem.n_candidates), problem.forbidden), problem.n):
        if not set(problem.required) <= set(features):
            continue
        chosen = problem.value[list(features)]
        worth = np.array([[chosen[list(s), c].sum() for s in subsets] for c in range(problem.n_classes)])
        rest = problem.bias[list(features)].sum() - problem.redundancy[np.ix_(features, features)].sum() / 2
        for choice in choices:
            free = [q for q in range(len(subsets)) if q not in choice.values()]
            if len(free) < len(others):
                continue
            value = sum(worth[c, q] for c, q in choice.items())
            if others:
                table = worth[np.ix_(others, free)]
                rows, columns = linear_sum_assignment(-table)
                value += table[rows, columns].sum()
            best = max(best, value + rest)
    return best


def twins(f=96, c=16, seed=0):
    """Classes in pairs that differ in a few features, as toy birds do; features serve several classes."""
    rng = np.random.default_rng(seed)
    pairs = (rng.random((f, c // 2)) < 0.2) * rng.uniform(0.5, 1, (f, c // 2))
    a = np.repeat(pairs, 2, axis=1) + 0.08 * rng.normal(size=(f, c))
    return a / np.abs(a).max()
