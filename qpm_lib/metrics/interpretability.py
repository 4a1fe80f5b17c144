"""Measures of interpretability, as published with DINO-QPM (arXiv 2604.07166) and QPM (arXiv 2502.20130).

Where the published code and the text differ, the text is followed: the last partial batch counts, features are ranked by |W|, the
mixtures are seeded. Functions of maps work on any number of pictures and are means over them.
"""

import warnings
from statistics import NormalDist

import numpy as np
import torch
from einops import einsum, rearrange, reduce
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F


def sid_per_image(
    maps: Float[Tensor, "images features g g"],
    weight: Float[Tensor, "classes features"],
    predicted: Int[Tensor, "images"],
    k: int = 5,
) -> Float[Tensor, "images"]:
    """SID@k of each picture (see `sid`); NaN where the predicted class has fewer than k non-zero weights."""
    strength = weight[predicted].abs()
    if k > strength.shape[1]:
        return torch.full((len(maps),), torch.nan)
    top = strength.topk(k, dim=1).indices
    flat = rearrange(maps, "b f y x -> b f (y x)").float()
    scaled = (flat / flat.abs().mean(-1, keepdim=True).clamp_min(1e-5)).softmax(-1)
    chosen = scaled[torch.arange(len(maps), device=maps.device)[:, None], top]
    score = chosen.amax(1).sum(1) / k
    return torch.where((strength > 0).sum(1) >= k, score, torch.nan)


def sid(
    maps: Float[Tensor, "images features g g"],
    weight: Float[Tensor, "classes features"],
    predicted: Int[Tensor, "images"],
    k: int = 5,
) -> float:
    """SID@k, spatial diversity of the k strongest features of the predicted class: mean of (1/k) sum_p max_f M'[f, p].

    M' is the softmax over patches of M / max(mean_p |M|, 1e-5). 1/k: all at the same place; 1: all at different places. Pictures whose
    class has fewer than k non-zero weights are left out; NaN when that leaves none.
    """
    scores = sid_per_image(maps, weight, predicted, k)
    return float(scores[~scores.isnan()].mean())


def class_independence(features: Float[np.ndarray, "images features"], labels: Int[np.ndarray, "images"]) -> float:
    """1 - mean over features of the largest share that one class has in the feature's activation (training pictures, true labels).

    Activations are taken above the feature's minimum. A constant feature has no activation to share and is left out.
    """
    above = features - features.min(0)
    total = above.sum(0)
    active = total > 0
    if not active.any():
        return float("nan")
    by_class = np.stack([above[labels == c].sum(0) for c in range(int(labels.max()) + 1)])
    return float(1 - (by_class[:, active] / total[active]).max(0).mean())


def contrastiveness(features: Float[np.ndarray, "images features"], seed: int = 0) -> float:
    """1 - mean overlap of the two components of a Gaussian mixture fitted to each feature: 1 means clearly on or off.

    Features are z-scored first and the mixtures seeded. A constant feature is neither on nor off: overlap 1.
    """
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


def correlation(features: Float[np.ndarray, "images features"]) -> float:
    """Mean over features of the largest cosine similarity with another feature, uncentred, on the raw features."""
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
    weight: Float[np.ndarray, "classes features"],
    class_attributes: Float[np.ndarray, "classes attributes"],
    top: int = 50,
) -> float:
    """Whether classes that look alike share features: class similarity by W over class similarity by attributes, on the `top` most alike pairs.

    Ordered pairs count, as published, so that a pair enters twice. NaN when no two classes have an attribute in common.

    Raises
    ------
    ValueError : for a class without weights or without attributes.
    """
    ours, theirs = _row_cosine(weight, "the class weights"), _row_cosine(class_attributes, "the class attributes")
    most = np.argsort(-theirs, axis=None, kind="stable")[:top]
    alike = theirs.ravel()[most].sum()
    return float(ours.ravel()[most].sum() / alike) if alike > 0 else float("nan")


def attribute_alignment(
    features: Float[np.ndarray, "images features"], attributes: Bool[np.ndarray, "images attributes"]
) -> float:
    """Mean over features of the best attribute's effect: (mean with it - mean without it) / mean activation above the minimum.

    Attributes that all or no pictures have, and constant features, are left out; NaN when nothing is left.
    """
    usable = attributes[:, (attributes.any(0)) & (~attributes.all(0))].astype(np.float64)
    above = features.mean(0) - features.min(0)
    alive = above > 0
    if not usable.shape[1] or not alive.any():
        return float("nan")
    with_it = usable.T @ features / usable.sum(0)[:, None]
    without = (1 - usable).T @ features / (1 - usable).sum(0)[:, None]
    return float(((with_it - without).max(0)[alive] / above[alive]).mean())


def grid_masks(masks: Bool[Tensor, "images h w"], grid: int, *, dilate: bool = True) -> Float[Tensor, "images g g"]:
    """Masks on the patch grid: a patch counts when any of it is foreground; dilated once by 3 x 3."""
    cells = F.adaptive_max_pool2d(masks[:, None].float(), grid)
    return (F.max_pool2d(cells, 3, 1, 1) if dilate else cells)[:, 0]


def _combined_map(
    maps: Float[Tensor, "images features g g"],
    weight: Float[Tensor, "classes features"],
    predicted: Int[Tensor, "images"],
) -> Float[Tensor, "images g g"]:
    """G = sum_f W M_f of the predicted class."""
    return einsum(weight[predicted].float(), maps.float(), "b f, b f y x -> b y x")


def plausibility_per_image(
    maps: Float[Tensor, "images features g g"],
    weight: Float[Tensor, "classes features"],
    predicted: Int[Tensor, "images"],
    masks: Bool[Tensor, "images h w"],
    *,
    dilate: bool = True,
) -> tuple[Float[Tensor, "images"], Float[Tensor, "images"]]:
    """Plausibility and chance value of each picture (see `plausibility`)."""
    combined = _combined_map(maps, weight, predicted)
    combined = combined - reduce(combined, "b y x -> b 1 1", "min")
    inside = grid_masks(masks, maps.shape[-1], dilate=dilate).to(maps.device)
    mass = reduce(combined, "b y x -> b", "sum")
    chance = reduce(inside, "b y x -> b", "mean")
    score = reduce(combined * inside, "b y x -> b", "sum") / mass.clamp_min(1e-12)
    return torch.where(mass > 1e-12, score, chance), chance


def plausibility(
    maps: Float[Tensor, "images features g g"],
    weight: Float[Tensor, "classes features"],
    predicted: Int[Tensor, "images"],
    masks: Bool[Tensor, "images h w"],
    dilate: bool = True,
) -> float:
    """Share of the predicted class's map G = sum_f W M_f (minus its minimum) that lies on the object, mean over pictures.

    The mask is brought to g x g and dilated once. A constant map says nothing about the place and scores the chance value, the
    share of the dilated mask's area.
    """
    return float(plausibility_per_image(maps, weight, predicted, masks, dilate=dilate)[0].mean())


def pointing_per_image(
    maps: Float[Tensor, "images features g g"],
    weight: Float[Tensor, "classes features"],
    predicted: Int[Tensor, "images"],
    masks: Bool[Tensor, "images h w"],
    *,
    dilate: bool = True,
) -> Float[Tensor, "images"]:
    """1 where the strongest patch of a picture lies on the object, else 0 (see `pointing`)."""
    combined = _combined_map(maps, weight, predicted)
    inside = grid_masks(masks, maps.shape[-1], dilate=dilate).to(maps.device)
    return inside.flatten(1).gather(1, combined.flatten(1).argmax(1, keepdim=True))[:, 0]


def pointing(
    maps: Float[Tensor, "images features g g"],
    weight: Float[Tensor, "classes features"],
    predicted: Int[Tensor, "images"],
    masks: Bool[Tensor, "images h w"],
    dilate: bool = True,
) -> float:
    """Plausibility with `max` for the sum: share of pictures whose strongest patch lies on the object."""
    return float(pointing_per_image(maps, weight, predicted, masks, dilate=dilate).mean())
