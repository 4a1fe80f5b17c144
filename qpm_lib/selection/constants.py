"""The constants of the quadratic programme: relevance A, redundancy R, and their thresholds (QPM, arXiv 2502.20130,
section 3).
"""

import logging
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Int

from qpm_lib.core import read_redundancy_rule

log = logging.getLogger(__name__)
_STEPS = 24
_BLOCK = 128


def relevance(
    features: Float[np.ndarray, "images features"],
    labels: Int[np.ndarray, "images"],
    *,
    constant: Literal["error", "zero"] = "error",
) -> Float[np.ndarray, "features classes"]:
    """Relevance A (F, C): Pearson correlation of each feature with each class indicator, divided by max |A|.

    Parameters
    ----------
    features : (N, F) training features. labels : (N,) classes 0 to C-1.
    constant : a feature without variance has no correlation. `error` refuses it, `zero` gives it relevance 0 and logs
        it.

    Raises
    ------
    ValueError : for values that are not finite, a class without samples, fewer than two classes, or constant features.
    """
    if constant not in ("error", "zero"):
        raise ValueError(f"constant (={constant!r}) must be error or zero")
    x, y = np.asarray(features), np.asarray(labels)
    if not np.isfinite(x).all():
        raise ValueError(f"features hold {int((~np.isfinite(x)).sum())} values that are not finite")
    if len(x) != len(y):
        raise ValueError(f"{len(x)} feature vectors but {len(y)} labels")
    counts = np.bincount(y)
    if len(counts) < 2:
        raise ValueError("relevance needs at least two classes")
    if (counts == 0).any():
        raise ValueError(
            f"class {int(np.flatnonzero(counts == 0)[0])} has no samples: number the classes 0 to C-1 without gaps"
        )
    blocks = [
        _block(np.asarray(x[:, i : i + _BLOCK], np.float64), y, len(counts)) for i in range(0, x.shape[1], _BLOCK)
    ]
    means, spread, flat = (np.concatenate(parts) for parts in zip(*blocks, strict=True))
    if flat.any():
        names = np.flatnonzero(flat)
        if constant == "error":
            raise ValueError(
                f"{flat.sum()} features are constant (first: {names[0]}) and have no correlation: leave them out, "
                "or pass constant='zero'"
            )
        log.warning("%d constant features get relevance 0: %s", flat.sum(), names.tolist())
    if flat.all():
        raise ValueError("all features are constant: the dense model has learned nothing")
    share = counts / len(y)
    a = means * np.sqrt(share / (1 - share)) / np.where(flat, 1.0, spread)[:, None]
    a[flat] = 0.0
    return a / np.abs(a).max()


def _block(
    x: Float[np.ndarray, "images block"], y: Int[np.ndarray, "images"], n_classes: int
) -> tuple[Float[np.ndarray, "block classes"], Float[np.ndarray, "block"], Bool[np.ndarray, "block"]]:
    """Class means around the mean, standard deviation, and whether a feature is constant; for a few features,
    to save memory.
    """
    centred = x - x.mean(0)
    spread = np.sqrt((centred**2).mean(0))
    flat = spread <= 1e-9 * np.maximum(np.abs(x).max(0), 1e-300)
    return np.stack([centred[y == c].mean(0) for c in range(n_classes)], axis=1), spread, flat


def similarity(relevance: Float[np.ndarray, "features classes"]) -> Float[np.ndarray, "features features"]:
    """Cosine similarity of the rows of A, divided by its maximum, with a zero diagonal. A row of zeros is similar to
    nothing.
    """
    norm = np.linalg.norm(relevance, axis=1, keepdims=True)
    unit = np.divide(relevance, norm, out=np.zeros_like(relevance), where=norm > 0)
    r = unit @ unit.T
    r = (r + r.T) / 2
    np.fill_diagonal(r, 0.0)
    top = r.max()
    return r / top if top > 0 else r


def _spread_size(r: Float[np.ndarray, "f f"], threshold: float, wanted: int) -> int:
    """Size of a greedily grown set of features that are pairwise below the threshold."""
    close = r >= threshold
    np.fill_diagonal(close, False)
    alive, size = np.ones(len(r), bool), 0
    while alive.any() and size < wanted:
        degree = np.where(alive, close[:, alive].sum(1), len(r) + 1)
        pick = int(degree.argmin())
        alive &= ~close[pick]
        alive[pick] = False
        size += 1
    return size


def threshold(r: Float[np.ndarray, "f f"], n_features: int) -> float:
    """Smallest threshold found for which `n_features` features are pairwise below it (greedy clique search,
    bisection over the values).
    """
    values = np.unique(r[np.triu_indices(len(r), 1)])
    low, high = 0, len(values)
    for _ in range(_STEPS):
        middle = (low + high) // 2
        if middle >= len(values) or _spread_size(r, values[middle], n_features) >= n_features:
            high = middle
        else:
            low = middle + 1
        if low >= high:
            break
    return float(values[high]) if high < len(values) else float(np.nextafter(values[-1], np.inf))


def redundancy(
    relevance: Float[np.ndarray, "features classes"], n_features: int, rule: str | float = "as_coded"
) -> Float[np.ndarray, "features features"]:
    """Penalty matrix (F, F): symmetric, zero for pairs that are not penalised.

    Only pairs that are too similar are penalised: those at or above a threshold. Their similarity is rescaled by
    subtracting the smallest non-zero entry of the similarity matrix and dividing by the maximum. Features without any
    relevance are similar to nothing and do not count in any of this [ours: counted, dead features make a low threshold
    look possible, and most pairs of the others are penalised].

    Parameters
    ----------
    rule : `as_written`: the smallest threshold for which `n_features` features are pairwise below it.
        `as_coded` (default): the published code searches that threshold on R + R^T and applies it to R,
        which doubles it; comparable with published results. A number: that share of the pairs, the most similar ones.
        `none`: no penalty.

    Raises
    ------
    ValueError : for an unknown rule, values that are not finite, or more features wanted than there are.
    """
    rule = read_redundancy_rule(rule)
    f = len(relevance)
    if not 1 <= n_features <= f:
        raise ValueError(f"n_features (={n_features}) must be from 1 to the number of features (={f})")
    if not np.isfinite(relevance).all():
        raise ValueError(f"relevance holds {int((~np.isfinite(relevance)).sum())} values that are not finite")
    result, live = np.zeros((f, f)), np.flatnonzero((relevance != 0).any(1))
    if rule == "none" or len(live) < 2:
        return result
    if len(live) < f:
        result[np.ix_(live, live)] = redundancy(relevance[live], min(n_features, len(live)), rule)
        return result
    r = similarity(np.asarray(relevance, np.float64))
    pairs = np.sort(r[np.triu_indices(f, 1)])
    if isinstance(rule, float):
        limit = pairs[max(0, len(pairs) - round(rule * len(pairs)))] if round(rule * len(pairs)) else np.inf
    else:
        limit = threshold(r, n_features) * (2 if rule == "as_coded" else 1)
    shifted = r - r[r != 0].min() if (r != 0).any() else r
    scaled = shifted / shifted.max() if shifted.max() > 0 else shifted
    penalised = r >= limit
    np.fill_diagonal(penalised, False)
    return np.where(penalised, scaled, 0.0)


def similar_pairs(relevance: Float[np.ndarray, "features classes"], share: float = 0.5) -> list[tuple[int, int]]:
    """The round(share * C) pairs of classes whose columns of A are nearest (Euclidean), nearest first (CHiQPM, arXiv
    2511.20779).

    Raises
    ------
    ValueError : for a share that asks for no pair, or for more than there are.
    """
    c = relevance.shape[1]
    count, most = round(share * c), c * (c - 1) // 2
    if not 1 <= count <= most:
        raise ValueError(f"share (={share}) asks for {count} pairs of {c} classes: there are 1 to {most}")
    square = (relevance**2).sum(0)
    distance = square[:, None] + square - 2 * relevance.T @ relevance
    i, j = np.triu_indices(c, 1)
    nearest = np.argsort(distance[i, j], kind="stable")[:count]
    return [(int(i[q]), int(j[q])) for q in nearest]
