"""Names for features, proposed from what explains them; a person decides."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

_LEAST = 0.25  # of the variance


def propose_names(
    explained: Float[np.ndarray, "n attributes"], attributes: Sequence[str], *, least: float = _LEAST
) -> dict[int, tuple[str, float]]:
    """For each feature that one attribute explains: that attribute in words, and its support.

    Parameters
    ----------
    explained : share of a feature's variance that each attribute explains; see `squared_correlation`. attributes :
        their names, `beak::long` or `has_bill_shape::curved`. least : support that a proposal needs.

    Raises
    ------
    ValueError : when there is not one name for each attribute.
    """
    if explained.shape[1] != len(attributes):
        raise ValueError(f"{len(attributes)} names for {explained.shape[1]} attributes: one of each is needed")
    best = explained.argmax(1)
    support = explained[np.arange(len(best)), best]
    words = [" ".join(name.removeprefix("has_").replace("::", " ").replace("_", " ").split()) for name in attributes]
    return {f: (words[best[f]], float(support[f])) for f in np.flatnonzero(support >= least).tolist()}


def squared_correlation(
    x: Float[np.ndarray, "images features"], y: Float[np.ndarray, "images attributes"]
) -> Float[np.ndarray, "features attributes"]:
    """Share of the variance of each feature that each attribute explains: squared Pearson correlation, zero where a
    column is constant.
    """
    x, y = x - x.mean(0), y - y.mean(0)
    size = np.sqrt((x**2).sum(0))[:, None] * np.sqrt((y**2).sum(0))[None]
    return np.divide(x.T @ y, size, out=np.zeros_like(size), where=size > 1e-12) ** 2
