"""Parts of a rendered picture and maps on the patch grid: how much of a map lies on a part, and what it says of it."""

import numpy as np
import torch
from einops import einsum
from jaxtyping import Bool, Float, UInt8
from torch import Tensor
from torch.nn import functional as F

from qpm_lib.data import FACTOR_PART, PARTS

VARIED = tuple(dict.fromkeys(FACTOR_PART.values()))  # the parts that differ between birds


def part_importance(
    maps: Float[Tensor, "batch n g g"], parts: UInt8[np.ndarray, "batch h w"], dilate: int | None = None
) -> Float[np.ndarray, "batch n parts"]:
    """Share of each of the n maps of a picture that lies on each part of `PARTS[1:]`, on masks dilated by half a patch
    (`dilate` pixels).

    Maps are upsampled bilinearly. A signed map whose sum is not positive counts with its positive part.
    Shares of neighbouring parts overlap, so they need not add up to 1; a map without positive values has no importance
    anywhere. Shares grow with the area of a part: to ask what a map says of parts, take `read_out`.
    """
    height, width = parts.shape[1:]
    maps = maps.float().cpu()
    maps = torch.where(maps.sum((2, 3), keepdim=True) > 0, maps, maps.clamp_min(0))
    full = F.interpolate(maps, size=(height, width), mode="bilinear", align_corners=False)
    reach = height // maps.shape[-1] // 2 if dilate is None else dilate
    inside = torch.stack([torch.as_tensor(parts == p) for p in range(1, len(PARTS))], 1).float()
    inside = F.max_pool2d(inside, 2 * reach + 1, 1, reach) if reach else inside
    mass = full.sum((2, 3)).clamp_min(1e-12)
    return (einsum(full, inside, "b n y x, b p y x -> b n p") / mass[..., None]).numpy()


def coverage(regions: Bool[np.ndarray, "regions h w"], grid: int) -> Float[np.ndarray, "regions g g"]:
    """Share of each patch that each region covers, by area: patches need not end where pixels do."""
    down, across = (_overlap(grid, side) for side in regions.shape[1:])
    return down @ regions.astype(float) @ across.T


def _overlap(grid: int, pixels: int) -> Float[np.ndarray, "g pixels"]:
    """Share of each of g equal stretches that each of a number of pixels takes."""
    first, pixel = np.arange(grid)[:, None] * pixels / grid, np.arange(pixels)
    overlap = np.minimum(first + pixels / grid, pixel + 1) - np.maximum(first, pixel)
    return overlap.clip(0) * grid / pixels


def read_out(covered: Float[np.ndarray, "regions g g"]) -> Float[np.ndarray, "regions g g"]:
    """Weights w such that sum_p w_r[p] map[p] is the value of region r, where the values are those with which the
    regions, painted onto the patch grid, come closest to the map (least squares).

    A map that paints each region in a colour of its own gives back exactly these colours, whatever the areas are and
    also where several regions share a patch. A region without area gets weight zero. Means over masks, which are the
    obvious thing to take, mix the values of neighbours; shares of the map grow with the area.
    """
    flat = covered.reshape(len(covered), -1)
    seen = flat.any(1)
    weights = np.zeros_like(flat)
    weights[seen] = np.linalg.pinv(flat[seen].T)
    return weights.reshape(covered.shape)


def paint(values: Float[np.ndarray, "regions"], covered: Float[np.ndarray, "regions g g"]) -> Float[np.ndarray, "g g"]:
    """The map that shows a value for each region, as the patch grid can show it."""
    return np.tensordot(values, covered, 1)
