"""Does the score depend on what a map shows? Checks that need no truth, as published beside the methods.

They judge a map by what the model does with pictures that it has never seen (with holes). Where pictures can be drawn
again, `ground_truth` and `part_removal` ask without holes; both belong into one table.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from qpm_lib.core import progress
from qpm_lib.explain import Target
from qpm_lib.metrics.inputs import tensors
from qpm_lib.metrics.removal import filler, removal_curves

Explain = Callable[[Sequence[Image.Image], Int[Tensor, "batch"]], Float[Tensor, "batch g g"]]


def deletion(
    target: Target,
    images: Sequence[Image.Image],
    maps: Float[Tensor, "batch g g"],
    targets: Int[Tensor, "batch"],
    **options: Any,
) -> Float[np.ndarray, "batch"]:
    """Area under the probability of the class while the most important patches go first: low is good (Petsiuk et al.
    2018). `options` are those of `removal_curves`: fill, steps, seed, batch_size.
    """
    return removal_curves(target, images, maps, targets, **options).area()


def insertion(
    target: Target,
    images: Sequence[Image.Image],
    maps: Float[Tensor, "batch g g"],
    targets: Int[Tensor, "batch"],
    **options: Any,
) -> Float[np.ndarray, "batch"]:
    """Area under the probability of the class while the most important patches come first: high is good; options as
    for `deletion`.
    """
    return removal_curves(target, images, maps, targets, least_first=True, **options).area()


def curve_gap(
    target: Target,
    images: Sequence[Image.Image],
    maps: Float[Tensor, "batch g g"],
    targets: Int[Tensor, "batch"],
    *,
    steps: int = 41,
    **options: Any,
) -> Float[np.ndarray, "batch"]:
    """Area between the curves of the logit, least important patches first and most important first: high is good, a
    random order gives zero in the mean. It is the *correctness* of CDAM (arXiv 2312.02364), with patches for pixels;
    options as for `deletion`.
    """
    late, early = (
        removal_curves(target, images, maps, targets, least_first=least, steps=steps, **options)
        for least in (True, False)
    )
    return late.area("logits") - early.area("logits")


def compactness(maps: Float[Tensor, "batch g g"]) -> Float[np.ndarray, "batch"]:
    """Share of the patches with less than 5 % of the largest absolute value: high is compact (arXiv 2312.02364).

    A map of zeros shows nothing and is not compact: NaN.
    """
    (maps,) = tensors(maps=(maps, "batch y x"))
    size = maps.float().abs().flatten(1)
    most = size.amax(1, keepdim=True)
    share = (size <= 0.05 * most).float().mean(1)
    return torch.where(most[:, 0] > 0, share, torch.nan).double().cpu().numpy()


class BoxEffects(NamedTuple):
    """What pictures lose where random boxes are taken away; shared by all maps.

    `boxes` (n, g, g); `drops` (B, n, C) of the logits.
    """

    boxes: Bool[np.ndarray, "n g g"]
    drops: Float[np.ndarray, "batch n classes"]


@torch.no_grad()
def box_effects(
    target: Target, images: Sequence[Image.Image], *, n: int = 100, seed: int = 0, batch_size: int = 32
) -> BoxEffects:
    """Take n random boxes of patches away, one at a time, filled with the mean colour of the picture.

    Raises
    ------
    ValueError : for fewer than three boxes.
    """
    if n < 3:
        raise ValueError(f"n (={n}) boxes are too few for a correlation: take 3 or more")
    rng, grid = np.random.default_rng([seed, 79]), target.grid
    boxes = np.zeros((n, grid, grid), bool)
    for box in boxes:
        (top, bottom), (left, right) = (np.sort(rng.choice(grid + 1, 2, replace=False)) for _ in range(2))
        box[top:bottom, left:right] = True
    drops = []
    for image in progress(images, "boxes taken away"):
        pixels = target.pixels([image])
        size = pixels.shape[-2:]
        gone = F.interpolate(torch.as_tensor(boxes)[:, None].float(), size=size, mode="nearest").to(pixels.device) > 0
        versions = torch.where(gone, filler(target, pixels, image, "mean"), pixels)
        answers = torch.cat([target(part) for part in versions.split(batch_size)])
        drops.append((target(pixels) - answers).cpu().double().numpy())
    return BoxEffects(boxes, np.stack(drops))


def box_sensitivity(
    maps: Float[Tensor, "batch g g"], targets: Int[Tensor, "batch"], effects: BoxEffects
) -> Float[np.ndarray, "batch"]:
    """Correlation over random boxes of the sum of the map in a box and the drop of the logit without it (arXiv
    2312.02364). Note that a larger box has more of any map and costs more; NaN where either does not vary.
    """
    (maps,) = tensors(maps=(maps, "batch y x"))
    sums = np.einsum("b y x, n y x -> b n", maps.double().cpu().numpy(), effects.boxes)
    drops = effects.drops[np.arange(len(sums)), :, torch.as_tensor(targets).cpu().numpy()]
    return _pearson(sums, drops)


def class_sensitivity(
    explain: Explain, target: Target, images: Sequence[Image.Image]
) -> dict[str, Float[np.ndarray, "batch"]]:
    """1 - Pearson correlation of the map of the best class and that of the `second`, and of the `least` likely class.

    0 is a map that does not know the class, 1 maps that have nothing to do with each other, 2 opposite ones. (Which
    classes, and the scale, are ours.) NaN where a map is constant.
    """
    with torch.no_grad():
        ranked = torch.cat([target(target.pixels([image])) for image in images]).argsort(1, descending=True).cpu()
    own = explain(images, ranked[:, 0])
    others = {"second": ranked[:, min(1, ranked.shape[1] - 1)], "least": ranked[:, -1]}
    return {name: 1 - map_correlation(own, explain(images, labels)) for name, labels in others.items()}


def map_correlation(a: Float[Tensor, "batch g g"], b: Float[Tensor, "batch g g"]) -> Float[np.ndarray, "batch"]:
    """Pearson correlation of two maps of each picture over patches; NaN where one is constant."""
    return _pearson(*(maps.flatten(1).double().cpu().numpy() for maps in (a, b)))


def _pearson(a: Float[np.ndarray, "batch n"], b: Float[np.ndarray, "batch n"]) -> Float[np.ndarray, "batch"]:
    a, b = (values - values.mean(1, keepdims=True) for values in (a, b))
    a, b = (values / np.maximum(np.abs(values).max(1, keepdims=True), 1e-300) for values in (a, b))
    size = np.sqrt((a**2).sum(1) * (b**2).sum(1))
    return np.divide((a * b).sum(1), size, out=np.full(len(a), np.nan), where=size > 1e-12)
