"""Explanations against the truth, which rendered pictures have: draw the scene again without a part and see (after
FunnyBirds, ICCV 2023).

Nothing here knows how an explanation is made: `explain(images, targets) -> maps (B, g, g)` is the contract of
`qpm_lib.explain`, and `classify(images) -> logits (B, C)` is the model it belongs to.
"""

import itertools
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from einops import einsum
from jaxtyping import Float, Int, UInt8
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from qpm_lib.core import progress
from qpm_lib.data import CLUTTER, FACTOR_PART, FACTORS, PARTS, Bird, ImageDataset, Scenes
from qpm_lib.metrics.remember import Classify

Explain = Callable[[Sequence[Image.Image], Int[Tensor, "batch"]], Float[Tensor, "batch g g"]]
VARIED = tuple(dict.fromkeys(FACTOR_PART.values()))  # parts that differ between birds
_SMALL_CHANGE = 0.05
_VISIBLE_CHANGE = 8  # of 255: above the noise


@dataclass(frozen=True)
class PartChecks:
    """Means over pictures, each 0 to 1, higher is better; None where no picture allows the check.

    Attributes
    ----------
    sufficient : how much of a smallest set of parts that tells the class from all others is among the important parts.
    preservation : the class stays when only the important parts are drawn. deletion : it changes when they are left
        out.
    completeness : mean of these three. correctness : (1 + rank correlation of importance and logit drop per removed
        part) / 2.
    contrastivity : the part that gains most importance against the twin class is the one by which the twins differ;
        `contrastivity_chance` is 1 / parts.
    distractibility : parts and clutter that hardly matter get no importance.
    pictures, undefined : pictures looked at, and correlations that were undefined.

    Large parts get more of any map and cost more when they are taken away, so that these values depend on the areas of
    parts: a map without any idea (`explain.RandomMap`, `explain.CentredBlob`) gets far more than 0 or 0.5 in some of
    them. Read a value only beside theirs, on the same pictures.
    """

    completeness: float | None
    sufficient: float | None
    preservation: float | None
    deletion: float | None
    correctness: float | None
    contrastivity: float | None
    contrastivity_chance: float | None
    distractibility: float | None
    pictures: int
    undefined: int


def part_importance(
    maps: Float[Tensor, "batch n g g"], parts: UInt8[np.ndarray, "batch h w"], dilate: int | None = None
) -> Float[np.ndarray, "batch n parts"]:
    """Share of each of the n maps of a picture that lies on each part of `PARTS[1:]`, on masks dilated by half a patch
    (`dilate` pixels).

    Maps are upsampled bilinearly. A signed map whose sum is not positive counts with its positive part.
    Shares of neighbouring parts overlap, so they need not add up to 1; a map without positive values has no importance
    anywhere.
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


def sufficient_parts(species: Sequence[Bird], label: int) -> list[frozenset[str]]:
    """The smallest sets of parts (by inclusion) whose variants no other species shares all of."""

    def look(bird: Bird, part: str) -> tuple[str, ...]:
        return tuple(getattr(bird, factor) for factor, where in FACTOR_PART.items() if where == part)

    differs = [
        {p for p in VARIED if look(bird, p) != look(species[label], p)} for c, bird in enumerate(species) if c != label
    ]
    found: list[frozenset[str]] = []
    for size in range(1, len(VARIED) + 1):
        for chosen in itertools.combinations(VARIED, size):
            if not any(smaller <= set(chosen) for smaller in found) and all(d & set(chosen) for d in differs):
                found.append(frozenset(chosen))
    return found


def twin(species: Sequence[Bird], label: int) -> tuple[int, str] | None:
    """The species that differs in one part only, and that part; None when there is none."""
    for c, bird in enumerate(species):
        parts = {FACTOR_PART[factor] for factor in FACTORS if getattr(bird, factor) != getattr(species[label], factor)}
        if c != label and len(parts) == 1:
            return c, parts.pop()
    return None


def _drawn(scenes: Scenes, dataset: ImageDataset, row: int, withouts: Sequence[Collection[str]]) -> list[Image.Image]:
    return [Image.fromarray(scenes.render(dataset, row, without=w).image) for w in withouts]


def part_checks(
    explain: Explain,
    classify: Classify,
    dataset: ImageDataset,
    scenes: Scenes,
    rows: Sequence[int] | Int[np.ndarray, "rows"],
    *,
    threshold: float = 0.05,
) -> PartChecks:
    """Check an explanation of the predicted class against pictures drawn without parts.

    Parameters
    ----------
    rows : pictures to look at; wrong predictions are left out. threshold : share of a map above which a part counts as
        important.

    Raises
    ------
    ValueError : for an empty list of pictures.
    """
    if not len(rows):
        raise ValueError("no pictures were given to check: choose at least one row")
    scores, undefined = [], 0
    for row in progress(rows, "checking parts"):
        checks = _check_picture(explain, classify, dataset, scenes, int(row), threshold)
        if checks is not None:
            undefined += checks.pop("undefined")
            scores.append(checks)

    def mean(name: str) -> float | None:
        values = [s[name] for s in scores if s.get(name) is not None]
        return float(np.mean(values)) if values else None

    names = (
        "sufficient",
        "preservation",
        "deletion",
        "correctness",
        "contrastivity",
        "contrastivity_chance",
        "distractibility",
    )
    means = {name: mean(name) for name in names}
    three = [means[name] for name in names[:3] if means[name] is not None]
    return PartChecks(
        completeness=float(np.mean(three)) if three else None, **means, pictures=len(scores), undefined=undefined
    )


def _check_picture(
    explain: Explain, classify: Classify, dataset: ImageDataset, scenes: Scenes, row: int, threshold: float
) -> dict[str, Any] | None:
    species, label, image = scenes.species, int(dataset.labels[row]), dataset.image(row)
    whole = scenes.render(dataset, row)
    visible = [p for p in VARIED if (whole.parts == PARTS.index(p)).any()]
    logits = classify([image, *_drawn(scenes, dataset, row, [(p,) for p in visible] + [(CLUTTER,)])])
    if int(logits[0].argmax()) != label or not visible:
        return None
    drop = (logits[0, label] - logits[1:, label]).cpu().numpy()
    maps = explain([image], torch.tensor([label], device=logits.device))
    share = part_importance(maps[:, None], whole.parts[None])[0, 0]
    by_part = {p: float(share[PARTS.index(p) - 1]) for p in visible}
    important = {p for p in visible if by_part[p] > threshold}
    kept, gone = classify(_drawn(scenes, dataset, row, [set(VARIED) - important, important])).argmax(1).tolist()
    sets = [s for s in sufficient_parts(species, label) if s <= set(visible)]
    result: dict[str, Any] = {
        "sufficient": max(len(s & important) / len(s) for s in sets) if sets else None,
        "preservation": float(kept == label),
        "deletion": float(gone != label),
        "undefined": 0,
    }
    ranks = [by_part[p] for p in visible]
    if len(visible) > 1 and np.ptp(ranks) > 0 and np.ptp(drop[:-1]) > 0:
        from scipy.stats import spearmanr  # slow to import

        result["correctness"] = (1 + float(spearmanr(ranks, drop[:-1]).statistic)) / 2
    else:
        result["undefined"] = 1
    small = np.abs(drop) < _SMALL_CHANGE * abs(float(logits[0, label]))
    bare = scenes.render(dataset, row, without=(CLUTTER,))
    region = (np.abs(whole.image.astype(int) - bare.image).max(2) > _VISIBLE_CHANGE) & (whole.parts == 0)
    on_clutter = float(part_importance(maps[:, None], region.astype(np.uint8)[None], dilate=0)[0, 0, 0])
    ignored = [s <= threshold for s, irrelevant in zip([*ranks, on_clutter], small, strict=True) if irrelevant]
    result["distractibility"] = float(np.mean(ignored)) if ignored else None
    return {**result, **_contrast(explain, image, maps, whole.parts, species, label, visible)}


def _contrast(
    explain: Explain,
    image: Image.Image,
    maps: Float[Tensor, "1 g g"],
    parts: UInt8[np.ndarray, "h w"],
    species: Sequence[Bird],
    label: int,
    visible: Sequence[str],
) -> dict[str, float | None]:
    other = twin(species, label)
    if other is None or other[1] not in visible:
        return {"contrastivity": None, "contrastivity_chance": None}
    rival = explain([image], torch.tensor([other[0]], device=maps.device))
    gain = (part_importance(maps[:, None], parts[None]) - part_importance(rival[:, None], parts[None]))[0, 0]
    gains = {p: gain[PARTS.index(p) - 1] for p in visible}
    top = max(gains.values())
    return {"contrastivity": float(gains[other[1]] >= top > 0), "contrastivity_chance": 1 / len(visible)}
