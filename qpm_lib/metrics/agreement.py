"""The checks of an explanation, as functions of what its maps say of the parts of a picture and of what is true.

Each takes m maps of one picture at once.
"""

import numpy as np
from jaxtyping import Bool, Float


def rank_agreement(
    said: Float[np.ndarray, "maps parts"], true: Float[np.ndarray, "parts"], area: Float[np.ndarray, "parts"]
) -> Float[np.ndarray, "maps"]:
    """Spearman's partial rank correlation of what is said of parts and what is true, given their areas.

    What is true of parts follows their areas in most models, so that a map which knows nothing but areas would agree
    with it; given the areas, it does not. 0 where all parts are said to be alike, or in the order of their areas:
    that tells nothing.
    """
    x, y, z = _ranks(said), _ranks(true), _ranks(area)
    xy, xz, yz = x @ y, x @ z, float(y @ z)
    size = np.sqrt(((1 - xz**2) * (1 - yz**2)).clip(0))
    return np.divide(xy - xz * yz, size, out=np.zeros(len(said)), where=size > 1e-6)


def rank_correlation(
    said: Float[np.ndarray, "maps things"], true: Float[np.ndarray, "things"]
) -> Float[np.ndarray, "maps"]:
    """Spearman's rank correlation; 0 where all things are said to be alike."""
    return _ranks(said) @ _ranks(true)


def _ranks(values: Float[np.ndarray, "*any parts"]) -> Float[np.ndarray, "*any parts"]:
    """Centred ranks of length 1, or of length 0 where all values are equal."""
    from scipy.stats import rankdata  # slow to import

    ranks = rankdata(_rounded(values), axis=-1) - (values.shape[-1] + 1) / 2
    size = np.sqrt((ranks**2).sum(-1, keepdims=True))
    return np.divide(ranks, size, out=np.zeros_like(ranks), where=size > 0)


def _rounded(values: Float[np.ndarray, "*any parts"]) -> Float[np.ndarray, "*any parts"]:
    """Without the last digits, so that equal values are ties after a sum in another order."""
    scale = np.abs(values).max(-1, keepdims=True)
    return np.round(np.divide(values, scale, out=np.zeros_like(values), where=scale > 0), 9)


def decisive_part(
    gained: Float[np.ndarray, "maps parts"], true: Float[np.ndarray, "parts"]
) -> Float[np.ndarray, "maps"]:
    """Value of the part that gains most, as a share of the largest value: 1 where it is the decisive part, below 0
    where it speaks for the other side. Ties share; `true` must have a value above 0.
    """
    rounded = _rounded(gained)
    first = rounded == rounded.max(-1, keepdims=True)
    return (first * true).sum(-1) / first.sum(-1) / true.max()


def focus(
    strength: Float[np.ndarray, "maps things"],
    area: Float[np.ndarray, "things"],
    matters: Bool[np.ndarray, "things"],
) -> Float[np.ndarray, "maps"]:
    """(a - b) / (a + b) of the mean strength per area on things that matter (a) and on those that do not (b).

    There must be things of both kinds.
    """
    strength = strength.clip(0)
    a, b = (strength[:, side] @ (area[side] / area[side].sum()) for side in (matters, ~matters))
    return np.divide(a - b, a + b, out=np.zeros(len(strength)), where=a + b > 0)
