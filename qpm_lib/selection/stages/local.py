"""What a small group of features must pay for its similar pairs, as exactly as a linear inequality can say it.

For a group Q and a fractional point (s, y), look for weights q_ij <= R_ij and coefficients a such that every subset S
of Q satisfies sum_{ij in S} q_ij >= sum_{i in S} a_i - beta, while the point violates it. Then sum q y >= a s - beta
holds for every selection. The subsets are all enumerated (2^14 in a millisecond), so the cut is exact on Q:
it contains clique, odd-cycle and every other inequality of the Boolean quadric polytope on Q,
with the pair weights inside.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from qpm_lib.selection.stages.highs import INFINITE, Highs

_ROUNDS, _BATCH = 60, 20
_LARGE = 10.0
_EARLY = 1e-4


class LocalCut(NamedTuple):
    """sum_{i<j} weights_ij y_ij >= coefficients @ s - right."""

    coefficients: Float[np.ndarray, "q"]
    weights: Float[np.ndarray, "q q"]
    right: float


def subset_values(linear: Float[np.ndarray, "q"], quadratic: Float[np.ndarray, "q q"]) -> Float[np.ndarray, "subsets"]:
    """sum_{i in S} linear_i - sum_{i<j in S} quadratic_ij for all subsets S; bit i of the index: is i in S?"""
    values = np.zeros(1)
    for i in range(len(linear)):
        penalty = np.zeros(1)
        for j in range(i):
            penalty = np.concatenate([penalty, penalty + quadratic[i, j]])
        values = np.concatenate([values, values + linear[i] - penalty])
    return values


def local_cut(
    s: Float[np.ndarray, "q"], paid: Float[np.ndarray, "q q"], penalty: Float[np.ndarray, "q q"], minimum: float = 3e-3
) -> LocalCut | None:
    """The cut by which the point misses most of its penalty, or None when it misses less than `minimum`."""
    size = len(s)
    i, j = np.nonzero(np.triu(penalty, 1))
    n_variables = size + 1 + len(i)
    model = Highs()
    none, no_values = np.zeros(0, np.int32), np.zeros(0)
    model.addCols(
        n_variables,
        np.concatenate([-s, [1.0], paid[i, j]]),
        np.concatenate([np.full(size, -_LARGE), [-_LARGE], np.zeros(len(i))]),
        np.concatenate([np.full(size, _LARGE), [3 * _LARGE], penalty[i, j]]),
        0,
        np.zeros(n_variables, np.int32),
        none,
        no_values,
    )

    def add(subsets: Float[np.ndarray, "rows q"]) -> None:
        rows = np.hstack([subsets, -np.ones((len(subsets), 1)), -(subsets[:, i] * subsets[:, j])])
        for row in rows:
            used = np.flatnonzero(row).astype(np.int32)
            model.addRow(-INFINITE, 0.0, len(used), used, row[used])

    add(np.vstack([np.zeros((1, size)), np.eye(size)]))
    weights = np.zeros((size, size))
    for _ in range(_ROUNDS):
        model.run()
        x = np.array(model.getSolution().col_value)
        linear, right, pair_weights = x[:size], x[size], x[size + 1 :]
        if linear @ s - right - pair_weights @ paid[i, j] < _EARLY:
            return None
        weights[i, j] = weights[j, i] = pair_weights
        values = subset_values(linear, weights)
        top = values.max()
        if top <= right + 1e-6:
            break
        late = np.flatnonzero(values > right + max(1e-6, 0.3 * (top - right)))
        late = late[np.argsort(-values[late], kind="stable")[: 20 * _BATCH]]
        spread = late[np.linspace(0, len(late) - 1, min(_BATCH, len(late))).astype(int)]
        picked = np.unique(np.concatenate([late[: _BATCH // 2], spread]))
        add(((picked[:, None] >> np.arange(size)) & 1).astype(float))
    violation = linear @ s - top - pair_weights @ paid[i, j]
    return LocalCut(linear, weights, float(top)) if violation > minimum else None
