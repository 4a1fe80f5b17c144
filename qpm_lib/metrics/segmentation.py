"""Measures of a segmentation that knows no names: is its object the object, are its clusters parts, is one of them a
watermark?
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Integer

_SHUFFLES = 100


class Agreement(NamedTuple):
    """How far clusters are parts.

    Attributes
    ----------
    ari, nmi : adjusted Rand index and normalised mutual information, 0 for no and 1 for full agreement.
    matched_iou : mean over parts of the intersection over union with a cluster of their own, pairs chosen so that it is
        largest; a part without a cluster counts 0. purity : share of patches whose cluster is mostly of their part;
        it grows with the number of clusters alone. by_part : intersection over union of each part that there is.
    """

    ari: float
    nmi: float
    matched_iou: float
    purity: float
    by_part: dict[int, float]


def region_iou(
    found: Bool[np.ndarray, "batch h w"], truth: Bool[np.ndarray, "batch h w"]
) -> Float[np.ndarray, "batch"]:
    """Intersection over union of regions, picture by picture; 1 where both are empty."""
    union = (found | truth).sum((1, 2))
    return np.where(union > 0, (found & truth).sum((1, 2)) / np.maximum(union, 1), 1.0)


def localised(
    found: Bool[np.ndarray, "batch h w"], truth: Bool[np.ndarray, "batch h w"], *, at_least: float = 0.5
) -> Float[np.ndarray, "batch"]:
    """Whether the largest connected piece of a region overlaps the object with an intersection over union of at least
    1/2 (0 or 1), as object discovery is judged.
    """
    return (region_iou(np.stack([_largest(one) for one in found]), truth) >= at_least).astype(float)


def part_agreement(labels: Integer[np.ndarray, "*labels"], parts: Integer[np.ndarray, "*parts"]) -> Agreement:
    """Compare clusters with known parts, over all patches of all pictures together.

    Raises
    ------
    ValueError : for different numbers of patches.
    """
    from scipy.optimize import linear_sum_assignment
    from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score
    from sklearn.metrics.cluster import contingency_matrix

    if labels.shape != parts.shape:
        raise ValueError(f"labels {labels.shape} and parts {parts.shape} must be of the same patches")
    labels, parts = labels.ravel(), parts.ravel()
    both = contingency_matrix(labels, parts).astype(float)
    iou = both / (both.sum(1, keepdims=True) + both.sum(0, keepdims=True) - both)
    clusters, columns = linear_sum_assignment(-iou)
    there = np.unique(parts).tolist()
    by_part = dict.fromkeys(there, 0.0) | {there[c]: float(iou[k, c]) for k, c in zip(clusters, columns, strict=True)}
    return Agreement(
        float(adjusted_rand_score(parts, labels)),
        float(normalized_mutual_info_score(parts, labels)),
        sum(by_part.values()) / len(by_part),
        float(both.max(1).sum() / both.sum()),
        by_part,
    )


def stability(runs: Sequence[Integer[np.ndarray, "*any"]]) -> float:
    """Mean adjusted Rand index over pairs of segmentations of the same pictures, such as those of several seeds.

    Raises
    ------
    ValueError : for fewer than two.
    """
    from sklearn.metrics import adjusted_rand_score

    if len(runs) < 2:
        raise ValueError(f"stability needs two segmentations or more, not {len(runs)}")
    pairs = [(a, b) for i, a in enumerate(runs) for b in runs[i + 1 :]]
    return float(np.mean([adjusted_rand_score(a.ravel(), b.ravel()) for a, b in pairs]))


class Exclusive(NamedTuple):
    """The cluster that is most of a class's own, for each of C classes.

    Attributes
    ----------
    cluster : (C,) its number. present : (C,) share of the pictures of the class that show it, in `at_least` patches.
    elsewhere : (C,) the same share in the class that shows it most often otherwise. lead : (C,) the difference.
    chance : what no lead exceeds in 95 of 100 drawings by lot of which picture is of which class.
    """

    cluster: Integer[np.ndarray, "classes"]
    present: Float[np.ndarray, "classes"]
    elsewhere: Float[np.ndarray, "classes"]
    chance: float

    @property
    def lead(self) -> Float[np.ndarray, "classes"]:
        """By how much more often the class shows the cluster than any other class."""
        return self.present - self.elsewhere


def exclusive_clusters(
    labels: Integer[np.ndarray, "batch g g"], classes: Integer[np.ndarray, "batch"], *, at_least: int = 1, seed: int = 0
) -> Exclusive:
    """Which cluster is shown by one class alone? Class names of the pictures are used, no classifier.

    A part that only one species has is a cluster of its own, too: look where it lies before calling it a watermark.

    Raises
    ------
    ValueError : for fewer than two classes.
    """
    names = np.unique(classes)
    if len(names) < 2:
        raise ValueError("one class alone has nothing that others lack: give pictures of two classes or more")
    shown = np.stack([(labels == k).sum((1, 2)) >= at_least for k in range(int(labels.max()) + 1)]).astype(float)

    def best(classes: Integer[np.ndarray, "batch"]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        member = (classes == names[:, None]).astype(float)
        share = (member / member.sum(1, keepdims=True)) @ shown.T
        others = np.stack([np.delete(share, c, 0).max(0) for c in range(len(names))])
        cluster, rows = (share - others).argmax(1), np.arange(len(names))
        return cluster, share[rows, cluster], others[rows, cluster]

    rng = np.random.default_rng([seed, 43])
    by_lot = [np.subtract(*best(rng.permutation(classes))[1:]).max() for _ in range(_SHUFFLES)]
    return Exclusive(*best(classes), float(np.quantile(by_lot, 0.95)))


def features_in_clusters(
    maps: Float[np.ndarray, "batch n g g"], labels: Integer[np.ndarray, "batch g g"], k: int
) -> Float[np.ndarray, "n k"]:
    """Share of what each feature answers to that lies in each cluster; rows add up to 1, or are 0 for features that
    never answer. Maps are not negative.
    """
    member = labels[..., None] == np.arange(k)
    total = np.einsum("bnyx,byxk->nk", maps, member.astype(maps.dtype))
    return total / np.maximum(total.sum(1, keepdims=True), np.finfo(float).tiny)


def cluster_shares(labels: Integer[np.ndarray, "batch g g"], k: int) -> Float[np.ndarray, "batch k"]:
    """How much of each picture each cluster covers: a description of the picture in k numbers."""
    return (labels[..., None] == np.arange(k)).mean((1, 2))


def _largest(region: Bool[np.ndarray, "h w"]) -> Bool[np.ndarray, "h w"]:
    from scipy.ndimage import label

    pieces, count = label(region)
    return pieces == 1 + np.bincount(pieces[region], minlength=2)[1:].argmax() if count else region
