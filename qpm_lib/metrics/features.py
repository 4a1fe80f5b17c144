"""Measures of features and of the class layer, as published with DINO-QPM (arXiv 2604.07166)
and QPM (arXiv 2502.20130).

Where the published code and the text differ, the text is followed: mixtures are seeded. All take arrays and tensors.
"""

import warnings
from statistics import NormalDist

import numpy as np
from jaxtyping import Bool, Float, Int

from qpm_lib.metrics.inputs import Array, arrays


def class_independence(features: Float[Array, "images features"], labels: Int[Array, "images"]) -> float:
    """1 - mean over features of the largest share that one class has in the feature's activation (training pictures,
    true labels).

    Activations are taken above the feature's minimum. A constant feature has no activation to share and is left out.
    """
    features, labels = arrays(features=(features, "images features"), labels=(labels, "images"))
    above = features - features.min(0)
    total = above.sum(0)
    active = total > 0
    if not active.any():
        return float("nan")
    by_class = np.stack([above[labels == c].sum(0) for c in range(int(labels.max()) + 1)])
    return float(1 - (by_class[:, active] / total[active]).max(0).mean())


def contrastiveness(features: Float[Array, "images features"], seed: int = 0) -> float:
    """1 - mean overlap of the two components of a Gaussian mixture fitted to each feature: 1 means clearly on or off.

    Features are z-scored first and the mixtures seeded. A constant feature is neither on nor off: overlap 1.
    """
    (features,) = arrays(features=(features, "images features"))
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.mixture import GaussianMixture

    overlaps = []
    for column in features.T.astype(np.float64):
        spread = column.std()
        if spread <= 1e-12 or len(np.unique(column)) < 2:
            overlaps.append(1.0)
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            mixture = GaussianMixture(2, random_state=seed).fit(((column - column.mean()) / spread)[:, None])
        first, second = (
            NormalDist(float(m), float(np.sqrt(v)))
            for m, v in zip(mixture.means_[:, 0], mixture.covariances_[:, 0, 0], strict=True)
        )
        overlaps.append(first.overlap(second))
    return float(1 - np.mean(overlaps))


def correlation(features: Float[Array, "images features"]) -> float:
    """Mean over features of the largest cosine similarity with another feature, uncentred, on the raw features."""
    (features,) = arrays(features=(features, "images features"))
    norm = np.linalg.norm(features, axis=0)
    unit = features / np.where(norm > 0, norm, 1)
    cosine = unit.T @ unit
    np.fill_diagonal(cosine, -np.inf)
    return float(cosine.max(1).mean()) if len(cosine) > 1 else float("nan")


def _row_cosine(rows: Float[np.ndarray, "rows columns"], name: str) -> Float[np.ndarray, "rows rows"]:
    norm = np.linalg.norm(rows, axis=1, keepdims=True)
    if (norm == 0).any():
        raise ValueError(
            f"row {int(np.flatnonzero(norm == 0)[0])} of {name} is all zeros: its similarity to others is undefined"
        )
    cosine = (rows / norm) @ (rows / norm).T
    np.fill_diagonal(cosine, 0.0)
    return cosine


def structural_grounding(
    weight: Float[Array, "classes features"], class_attributes: Float[Array, "classes attributes"], top: int = 50
) -> float:
    """Whether classes that look alike share features: class similarity by W over class similarity by attributes,
    on the `top` most alike pairs.

    Ordered pairs count, as published, so that a pair enters twice. NaN when no two classes have an attribute in common.

    Raises
    ------
    ValueError : for a class without weights or without attributes.
    """
    weight, class_attributes = arrays(
        weight=(weight, "classes features"), class_attributes=(class_attributes, "classes attributes")
    )
    ours, theirs = _row_cosine(weight, "the class weights"), _row_cosine(class_attributes, "the class attributes")
    most = np.argsort(-theirs, axis=None, kind="stable")[:top]
    alike = theirs.ravel()[most].sum()
    return float(ours.ravel()[most].sum() / alike) if alike > 0 else float("nan")


def attribute_alignment(
    features: Float[Array, "images features"], attributes: Bool[Array, "images attributes"]
) -> float:
    """Mean over features of the best attribute's effect: (mean with it - mean without it) / mean activation above the
    minimum.

    Attributes that all or no pictures have, and constant features, are left out; NaN when nothing is left.
    """
    features, attributes = arrays(features=(features, "images features"), attributes=(attributes, "images attributes"))
    usable = attributes[:, (attributes.any(0)) & (~attributes.all(0))].astype(np.float64)
    above = features.mean(0) - features.min(0)
    alive = above > 0
    if not usable.shape[1] or not alive.any():
        return float("nan")
    with_it = usable.T @ features / usable.sum(0)[:, None]
    without = (1 - usable).T @ features / (1 - usable).sum(0)[:, None]
    return float(((with_it - without).max(0)[alive] / above[alive]).mean())
