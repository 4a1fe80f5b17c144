"""How good prediction sets are: how often they hold the truth, how many classes they name, and whether those belong
together.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from qpm_lib.conformal import coverage_interval


class SetQuality(NamedTuple):
    """Measures of prediction sets on test pictures.

    Attributes
    ----------
    coverage : share of sets that hold the true class. expected : where the coverage of valid sets falls in 95 % of all
        draws of calibration and test pictures (beta-binomial). size : mean number of classes. single, empty : share of
        sets with one class, and with none. coherence : mean similarity of the members of a set, over the sets with two
        or more (NaN where there are none). worst_class, worst_size : smallest coverage over the classes, and over the
        sizes of sets that occur at least ten times.
    """

    coverage: float
    expected: tuple[float, float]
    size: float
    single: float
    empty: float
    coherence: float
    worst_class: float
    worst_size: float

    @property
    def keeps_its_promise(self) -> bool:
        """Whether the coverage is not below what valid sets reach by chance."""
        return self.coverage >= self.expected[0]


def set_coherence(
    sets: Bool[np.ndarray, "images classes"], similarity: Float[np.ndarray, "classes classes"]
) -> Float[np.ndarray, "images"]:
    """Mean similarity of all pairs of members of each set; NaN for sets with fewer than two."""
    s = sets.astype(float)
    count = s.sum(1)
    pairs = ((s @ similarity) * s).sum(1) - s @ np.diagonal(similarity)
    return np.divide(pairs, count * (count - 1), out=np.full(len(s), np.nan), where=count > 1)


def attribute_similarity(attributes: Float[np.ndarray, "classes attributes"]) -> Float[np.ndarray, "classes classes"]:
    """Cosine similarity of the attributes that classes have (values above one half): the share of equal parts, where
    every class has one variant of each part. 0 for classes without any.
    """
    has = (np.asarray(attributes) > 0.5).astype(float)
    length = np.sqrt(has.sum(1))
    scale = np.outer(length, length)
    return np.divide(has @ has.T, scale, out=np.zeros((len(has), len(has))), where=scale > 0)


def set_quality(
    sets: Bool[np.ndarray, "images classes"],
    labels: Int[np.ndarray, "images"],
    *,
    alpha: float,
    calibrated_on: int,
    similarity: Float[np.ndarray, "classes classes"] | None = None,
) -> SetQuality:
    """All measures at once.

    Parameters
    ----------
    calibrated_on : m, the pictures behind the quantile. similarity : of classes, for the coherence.
    """
    held, sizes = sets[np.arange(len(labels)), labels], sets.sum(1)
    classes = [held[labels == c].mean() for c in np.unique(labels)]
    groups = [held[sizes == size].mean() for size in np.unique(sizes) if (sizes == size).sum() >= 10]
    coherent = np.full(1, np.nan) if similarity is None else set_coherence(sets, similarity)
    return SetQuality(
        coverage=float(held.mean()),
        expected=coverage_interval(calibrated_on, len(labels), alpha),
        size=float(sizes.mean()),
        single=float((sizes == 1).mean()),
        empty=float((sizes == 0).mean()),
        coherence=float(np.nanmean(coherent)) if np.isfinite(coherent).any() else float("nan"),
        worst_class=float(min(classes)),
        worst_size=float(min(groups, default=held.mean())),
    )
