"""Measures of feature maps, as published with DINO-QPM (arXiv 2604.07166) and QPM (arXiv 2502.20130).

Where the published code and the text differ, the text is followed: the last partial batch counts,
features are ranked by |W|. Measures work on any number of pictures and are means over them; all take arrays and
tensors.
"""

import torch
from einops import einsum, rearrange, reduce
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from qpm_lib.metrics.inputs import Array, check_classes, tensors


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
    maps: Float[Array, "images features g g"],
    weight: Float[Array, "classes features"],
    predicted: Int[Array, "images"],
    k: int = 5,
) -> float:
    """SID@k, spatial diversity of the k strongest features of the predicted class: mean of (1/k) sum_p max_f M'[f, p].

    M' is the softmax over patches of M / max(mean_p |M|, 1e-5). 1/k: all at the same place; 1: all at different places.
    Pictures whose class has fewer than k non-zero weights are left out; NaN when that leaves none.
    """
    maps, weight, predicted = tensors(
        maps=(maps, "images features g g"), weight=(weight, "classes features"), predicted=(predicted, "images")
    )
    check_classes("predicted", predicted, len(weight))
    if k < 1:
        raise ValueError(f"k (={k}) must be at least 1")
    scores = sid_per_image(maps, weight, predicted, k)
    return float(scores[~scores.isnan()].mean())


def grid_masks(masks: Bool[Array, "images h w"], grid: int, *, dilate: bool = True) -> Float[Tensor, "images g g"]:
    """Masks on the patch grid: a patch counts when any of it is foreground; dilated once by 3 x 3."""
    (masks,) = tensors(masks=(masks, "images h w"))
    cells = F.adaptive_max_pool2d((masks[:, None] > 0).float(), grid)  # 0 and 255 will do, too
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


def _with_masks(maps: Array, weight: Array, predicted: Array, masks: Array) -> list[Tensor]:
    parts = tensors(
        maps=(maps, "images features g g"),
        weight=(weight, "classes features"),
        predicted=(predicted, "images"),
        masks=(masks, "images h w"),
    )
    check_classes("predicted", parts[2], len(parts[1]))
    return parts


def plausibility(
    maps: Float[Array, "images features g g"],
    weight: Float[Array, "classes features"],
    predicted: Int[Array, "images"],
    masks: Bool[Array, "images h w"],
    dilate: bool = True,
) -> float:
    """Share of the predicted class's map G = sum_f W M_f (minus its minimum) that lies on the object,
    mean over pictures.

    The mask is brought to g x g and dilated once. A constant map says nothing about the place and scores the chance
    value, the share of the dilated mask's area.
    """
    parts = _with_masks(maps, weight, predicted, masks)
    return float(plausibility_per_image(*parts, dilate=dilate)[0].mean())


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
    maps: Float[Array, "images features g g"],
    weight: Float[Array, "classes features"],
    predicted: Int[Array, "images"],
    masks: Bool[Array, "images h w"],
    dilate: bool = True,
) -> float:
    """Plausibility with `max` for the sum: share of pictures whose strongest patch lies on the object."""
    parts = _with_masks(maps, weight, predicted, masks)
    return float(pointing_per_image(*parts, dilate=dilate).mean())
