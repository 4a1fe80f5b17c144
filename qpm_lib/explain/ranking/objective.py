"""What the explainer is trained on: areas under the curves of deletion and insertion, with a gradient."""

from typing import NamedTuple

import torch
from einops import rearrange
from jaxtyping import Float, Int
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from qpm_lib.explain.ranking.sorting import hard_sort, removed
from qpm_lib.explain.target import Target

# Standard deviation of the scores of a picture when they are sorted softly, beside anchors in [0, 1].
SPREAD = 6.0
_WINDOW = 15 / 224
REFERENCES = ("mean", "blur", "black")


class Areas(NamedTuple):
    """Areas under the probability of the class over the share that is gone (`deletion`, low is good) or there
    (`insertion`, high is good), (B,) each.
    """

    deletion: Float[Tensor, "batch"]
    insertion: Float[Tensor, "batch"]


class Fractions(NamedTuple):
    """Shares of the picture, (n,) each for deletion and insertion, and the weight of each in the area."""

    deletion: Float[Tensor, "n"]
    insertion: Float[Tensor, "n"]
    weights: Float[Tensor, "2 n"]


def draw_fractions(n: int, generator: torch.Generator | None = None) -> Fractions:
    """n fractions for each curve, drawn more densely where little is gone or there, which is where curves change.

    They are squares u^2 of one u in each of n equal parts of [0, 1] (their middles, without a generator), with weight
    2u, so that weighted means estimate areas (ours; published: 16 equal steps).
    """
    offsets = torch.full((2, n), 0.5) if generator is None else torch.rand(2, n, generator=generator)
    u = (torch.arange(n) + offsets) / n
    return Fractions(*u.square(), 2 * u)


def reference(target: Target, pixels: Float[Tensor, "batch 3 size size"], kind: str) -> Float[Tensor, "batch 3 h w"]:
    """What is shown where a picture is taken away: its `mean` colour, a strong `blur` of it, or `black`.

    Raises
    ------
    ValueError : for another kind.
    """
    if kind == "mean":
        return pixels.mean((2, 3), keepdim=True)
    if kind == "blur":
        small = F.adaptive_avg_pool2d(pixels, 4)
        return F.interpolate(small, size=pixels.shape[-2:], mode="bicubic")
    if kind == "black":
        return target.pixels([Image.new("RGB", (8, 8))]).mean((2, 3), keepdim=True).expand(len(pixels), -1, 1, 1)
    raise ValueError(f"reference (={kind!r}) must be one of {', '.join(REFERENCES)}")


def areas(
    target: Target,
    pixels: Float[Tensor, "batch 3 size size"],
    shown_instead: Float[Tensor, "batch 3 h w"],
    ranks: Float[Tensor, "batch levels cells"],
    classes: Int[Tensor, "batch"],
    fractions: Fractions,
    corner: tuple[int, int] = (0, 0),
) -> Areas:
    """Areas under both curves, from 2 n versions of each picture.

    One matrix of ranks serves both: inserting in the order of s is deleting in the order of -s read backwards, and so
    is the matrix.

    Parameters
    ----------
    corner : pixels that the first cell of the grid is cut by, down and across, where the grid does not begin at the
        corner of the picture.
    """
    gone = torch.cat([removed(ranks, fractions.deletion), 1 - removed(ranks, fractions.insertion)], 1)
    versions = hidden(pixels, shown_instead, gone, target.grid, corner)
    logits = target(rearrange(versions, "b n c h w -> (b n) c h w"))
    own = classes.repeat_interleave(gone.shape[1])
    chances = rearrange(logits.softmax(1).gather(1, own[:, None]), "(b n) 1 -> b n", b=len(pixels))
    deletion, insertion = (chances.unflatten(1, (2, -1)) * fractions.weights.to(chances)).mean(2).unbind(1)
    return Areas(deletion, insertion)


def hidden(
    pixels: Float[Tensor, "batch 3 size size"],
    shown_instead: Float[Tensor, "batch 3 h w"],
    gone: Float[Tensor, "batch n cells"],
    grid: int,
    corner: tuple[int, int] = (0, 0),
) -> Float[Tensor, "batch n 3 size size"]:
    """Versions of pictures in which cells of a grid are gone, wholly or in part."""
    size, side = pixels.shape[-1], round(gone.shape[2] ** 0.5)
    patch, (top, left) = size // grid, corner
    mask = rearrange(gone, "b n (y x) -> b n y x", y=side)
    mask = mask.repeat_interleave(patch, 2).repeat_interleave(patch, 3)[..., top : top + size, left : left + size]
    return torch.lerp(pixels[:, None], shown_instead[:, None].expand(-1, -1, -1, size, size), mask[:, :, None])


@torch.no_grad()
def hard_areas(
    target: Target,
    pixels: Float[Tensor, "batch 3 size size"],
    scores: Float[Tensor, "batch cells"],
    classes: Int[Tensor, "batch"],
    *,
    steps: int = 21,
) -> Areas:
    """The measure itself, whole patches in the order of the scores, in the mean colour; as `metrics.deletion` and
    `metrics.insertion` have it.
    """
    cells = scores.shape[1]
    counts, found = torch.linspace(0, cells, steps).round() / cells, []
    for one, own, c in zip(pixels.split(1), scores.split(1), classes.split(1), strict=True):
        gone = removed(hard_sort(own), counts)
        versions = hidden(one, reference(target, one, "mean"), torch.cat([gone, 1 - gone], 1), target.grid)
        chances = target(versions[0]).softmax(1)[:, c].unflatten(0, (2, -1))[..., 0]
        found.append(torch.trapezoid(chances, counts.to(chances), dim=1))
    return Areas(*torch.stack(found, 1))


def shifted_pool(
    dense: Float[Tensor, "batch size size"], grid: int, corner: tuple[int, int]
) -> Float[Tensor, "batch cells"]:
    """Means of a map over the cells of a grid that is cut at the top and the left by `corner`, in pixels."""
    if corner == (0, 0):
        return F.adaptive_avg_pool2d(dense, grid).flatten(1)
    patch, (top, left) = dense.shape[-1] // grid, corner
    padded = F.pad(dense[:, None], (left, patch - left, top, patch - top), mode="replicate")
    return F.avg_pool2d(padded[:, 0], patch).flatten(1)


def standardised(scores: Float[Tensor, "batch cells"]) -> Float[Tensor, "batch cells"]:
    """Scores with mean 0 and standard deviation 1: a ranking has no scale of its own."""
    centred = scores - scores.mean(1, keepdim=True)
    return centred / (centred.square().mean(1, keepdim=True) + 1e-10).sqrt()


def roughness(dense: Float[Tensor, "batch size size"]) -> Float[Tensor, ""]:
    """Mean square of what exceeds the mean of its surroundings, 15 pixels of 224 wide; of maps of standard deviation 1
    (ours: the published maps have a scale).
    """
    window = max(3, 2 * int(_WINDOW * dense.shape[-1] / 2) + 1)
    scaled = standardised(dense.flatten(1)).view_as(dense)[:, None]
    return F.relu(scaled - F.avg_pool2d(scaled, window, 1, window // 2, count_include_pad=False)).square().mean()
