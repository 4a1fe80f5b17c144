"""Taking patches away in the order of a map, and what the score does: the curves behind deletion and insertion.

Everything happens at the resolution of patches, so that no map wins by being smooth, and ties are broken in one fixed
random order.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from qpm_lib.core import progress
from qpm_lib.explain import Target
from qpm_lib.metrics.locality import blurred

FILLS = ("mean", "blur", "black", "road", "tokens")


class Curves(NamedTuple):
    """Scores of S versions of each picture, patches taken away from none to all.

    Attributes
    ----------
    removed : (S,) share of the patches that is taken away. logits, probabilities : (B, S) of the target class.
    """

    removed: Float[np.ndarray, "steps"]
    logits: Float[np.ndarray, "batch steps"]
    probabilities: Float[np.ndarray, "batch steps"]

    def area(self, of: str = "probabilities") -> Float[np.ndarray, "batch"]:
        """Area under the curve of each picture over the share that is removed (see `removed` for where it ends)."""
        return np.trapezoid(getattr(self, of), self.removed, axis=1)


def patch_order(maps: Float[Tensor, "batch g g"], *, seed: int = 0) -> Int[Tensor, "batch patches"]:
    """Numbers of the patches from the most important to the least; equal ones in a fixed random order.

    Raises
    ------
    ValueError : for maps with values that are not finite.
    """
    flat = maps.detach().cpu().float().flatten(1)
    if not flat.isfinite().all():
        raise ValueError(f"{int((~flat.isfinite()).sum())} values of the maps are not finite: they have no order")
    shuffled = torch.randperm(flat.shape[1], generator=torch.Generator().manual_seed(seed))
    return shuffled[flat[:, shuffled].argsort(dim=1, descending=True, stable=True)]


def removal_curves(
    target: Target,
    images: Sequence[Image.Image],
    maps: Float[Tensor, "batch g g"],
    targets: Int[Tensor, "batch"],
    *,
    least_first: bool = False,
    fill: str = "mean",
    steps: int = 21,
    seed: int = 0,
    batch_size: int = 32,
) -> Curves:
    """Scores while patches are taken away, the most important ones first, or the least important.

    Read from right to left, the curve of `least_first` is insertion: patches come back, the most important ones first.

    Parameters
    ----------
    fill : what is shown instead: `mean` colour of the picture, `blur` (the picture, blurred), `black`; `road`, each
        pixel a noisy mean of its neighbours (Rong et al. 2022), which tells least about the shape of what is gone; or
        `tokens`, where patch tokens are deleted after the position embedding and nothing is shown at all (one patch
        stays to the end). steps : S, number of versions.

    Raises
    ------
    ValueError : for another fill, fewer than two steps, or maps that do not fit the pictures.
    """
    if fill not in FILLS:
        raise ValueError(f"fill (={fill!r}) must be one of {', '.join(FILLS)}")
    if fill == "tokens" and not target.backbone.is_transformer:
        raise ValueError(
            f"fill (='tokens') needs a vision transformer, which {target.backbone.name} is not: choose mean"
        )
    if steps < 2:
        raise ValueError(f"steps (={steps}) must be at least 2: nothing and everything taken away")
    if tuple(maps.shape) != (len(images), target.grid, target.grid):
        raise ValueError(f"maps of shape {tuple(maps.shape)} do not fit {len(images)} pictures on a grid of "
                         f"{target.grid} x {target.grid}")  # fmt: skip
    labels, order = target.classes(targets, len(images)), patch_order(maps, seed=seed)
    order = order.flip(1) if least_first else order
    patches = order.shape[1]
    counts = np.round(np.linspace(0, patches, steps)).astype(int)
    if fill == "tokens":
        counts = counts.clip(max=patches - 1)
    scores = []
    for image, ranked in zip(progress(images, f"taking patches away ({fill})"), order, strict=True):
        pixels = target.pixels([image])
        if fill == "tokens":
            scores.append(_without_tokens(target, pixels, ranked, counts))
        else:
            scores.append(_with_fill(target, pixels, image, ranked, counts, fill, batch_size))
    logits = torch.stack(scores)
    own = labels.cpu()[:, None, None].expand(-1, steps, 1)
    pick = [values.gather(2, own)[..., 0].double().numpy() for values in (logits, logits.softmax(2))]
    return Curves(counts / patches, *pick)


@torch.no_grad()
def _with_fill(
    target: Target,
    pixels: Float[Tensor, "1 3 h w"],
    image: Image.Image,
    ranked: Int[Tensor, "patches"],
    counts: Int[np.ndarray, "steps"],
    fill: str,
    batch_size: int,
) -> Float[Tensor, "steps classes"]:
    rank = torch.empty_like(ranked)
    rank[ranked] = torch.arange(len(ranked))
    gone = (rank[None] < torch.as_tensor(counts)[:, None]).unflatten(1, (target.grid,) * 2)
    gone = F.interpolate(gone[:, None].float(), size=pixels.shape[-2:], mode="nearest") > 0
    if fill == "road":
        versions = torch.stack([imputed(pixels[0].cpu(), mask[0]) for mask in gone]).to(pixels.device)
    else:
        versions = torch.where(gone.to(pixels.device), filler(target, pixels, image, fill), pixels)
    return torch.cat([target(part) for part in versions.split(batch_size)]).cpu()


@torch.no_grad()
def _without_tokens(
    target: Target,
    pixels: Float[Tensor, "1 3 h w"],
    ranked: Int[Tensor, "patches"],
    counts: Int[np.ndarray, "steps"],
) -> Float[Tensor, "steps classes"]:
    rest, first = target.split(pixels, "blocks.0.input"), target.backbone.n_prefix
    found = []
    for count in counts:
        kept = ranked[count:].sort().values.to(pixels.device)
        prefix = torch.arange(first, device=pixels.device)
        found.append(rest(rest.activation[:, torch.cat([prefix, kept + first])], kept[None]))
    return torch.cat(found).cpu()


def filler(
    target: Target, pixels: Float[Tensor, "1 3 h w"], image: Image.Image, fill: str
) -> Float[Tensor, "1 3 h2 w2"]:
    """What is shown where a picture is taken away, as the backbone reads it: `mean`, `blur` or `black`."""
    if fill == "mean":
        return pixels.mean((2, 3), keepdim=True)
    shown = blurred(target.backbone.square(image)) if fill == "blur" else Image.new("RGB", (8, 8))
    return target.pixels([shown])


def imputed(pixels: Float[Tensor, "3 h w"], gone: Bool[Tensor, "h w"], *, seed: int = 0) -> Float[Tensor, "3 h w"]:
    """Noisy linear imputation: each pixel that is gone becomes the mean of its eight neighbours, direct ones with
    weight 1/6 and diagonal ones with 1/12, all of them solved for at once, plus a little noise (Rong et al. 2022).

    Where everything is gone, the mean colour is left.
    """
    from scipy.sparse import coo_matrix  # slow to import
    from scipy.sparse.linalg import spsolve

    mask = gone.numpy()
    if not mask.any() or mask.all():
        return pixels.mean((1, 2), keepdim=True).expand_as(pixels).clone() if mask.all() else pixels
    number = np.full(mask.shape, -1)
    number[mask] = np.arange(mask.sum())
    values, (ys, xs) = pixels.double().numpy(), np.nonzero(mask)
    known, total = np.zeros((3, len(ys))), np.zeros(len(ys))
    entries: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    for dy in (-1, 0, 1):
        for dx in (-1, 0, 1):
            weight = {0: 0.0, 1: 1 / 6, 2: 1 / 12}[abs(dy) + abs(dx)]
            y, x = ys + dy, xs + dx
            there = np.flatnonzero((y >= 0) & (y < mask.shape[0]) & (x >= 0) & (x < mask.shape[1]) & (weight > 0))
            total[there] += weight
            unknown = mask[y[there], x[there]]
            open_, seen = there[unknown], there[~unknown]
            known[:, seen] += weight * values[:, y[seen], x[seen]]
            entries.append((open_, number[y[open_], x[open_]], np.full(len(open_), -weight)))
    own = np.arange(len(ys))
    rows, columns, weights = (np.concatenate(part) for part in zip((own, own, total), *entries, strict=True))
    solved = spsolve(coo_matrix((weights, (rows, columns))).tocsc(), known.T)
    noise = np.random.default_rng(seed).normal(0, 0.01, solved.shape)
    filled = values.copy()
    filled[:, mask] = (solved + noise).T
    return torch.as_tensor(filled).to(pixels.dtype)
