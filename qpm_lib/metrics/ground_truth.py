"""Explanations against the truth, which rendered pictures have: draw the scene again without a part and see (after FunnyBirds, ICCV 2023).

Nothing here knows how an explanation is made: `explain(images, targets) -> maps (B, g, g)` is the contract of `qpm_lib.explain`, and
`classify(images) -> logits (B, C)` is the model it belongs to.
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
from torch.nn import functional as F  # noqa: N812

from qpm_lib.data import ImageDataset
from qpm_lib.data.birdshapes import FACTOR_PART, FACTORS, PARTS, Bird
from qpm_lib.data.toybirds import CLUTTER, random_bird, render
from qpm_lib.data.toyset import ATTRIBUTES, Scenes, present
from qpm_lib.progress import progress

Explain = Callable[[Sequence[Image.Image], Int[Tensor, "batch"]], Float[Tensor, "batch g g"]]
Classify = Callable[[Sequence[Image.Image]], Float[Tensor, "batch classes"]]
VARIED = tuple(dict.fromkeys(FACTOR_PART.values()))  # parts that differ between birds
_SMALL_CHANGE = 0.05
_VISIBLE_CHANGE = 8  # of 255: above the noise


@dataclass(frozen=True)
class PartChecks:
    """Means over pictures, each 0 to 1, higher is better; None where no picture allows the check.

    Attributes
    ----------
    sufficient : how much of a smallest set of parts that tells the class from all others is among the important parts.
    preservation : the class stays when only the important parts are drawn. deletion : it changes when they are left out.
    completeness : mean of these three. correctness : (1 + rank correlation of importance and logit drop per removed part) / 2; 0.5 is
    what a map without any idea gets. contrastivity : the part that gains most importance against the twin class is the one by which the
    twins differ; `contrastivity_chance` is 1 / parts. distractibility : parts and clutter that hardly matter get no importance.
    pictures, undefined : pictures looked at, and correlations that were undefined.
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
    """Share of each of the n maps of a picture that lies on each part of `PARTS[1:]`, on masks dilated by half a patch (`dilate` pixels).

    Maps are upsampled bilinearly. A signed map whose sum is not positive counts with its positive part. Shares of neighbouring parts
    overlap, so they need not add up to 1; a map without positive values has no importance anywhere.
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

    differs = [{p for p in VARIED if look(bird, p) != look(species[label], p)} for c, bird in enumerate(species) if c != label]
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
    rows : pictures to look at; wrong predictions are left out. threshold : share of a map above which a part counts as important.

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

    names = ("sufficient", "preservation", "deletion", "correctness", "contrastivity", "contrastivity_chance", "distractibility")
    means = {name: mean(name) for name in names}
    three = [means[name] for name in names[:3] if means[name] is not None]
    return PartChecks(completeness=float(np.mean(three)) if three else None, **means, pictures=len(scores), undefined=undefined)


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


@dataclass(frozen=True)
class Purity:
    """What each feature answers to, measured on birds with independent random variants.

    Attributes
    ----------
    explained : (n, A) share of a feature's variance that one attribute (part and variant) explains. attributes : their names.
    best : (n,) the attribute that explains most. purity : (n,) that share. on_part : (n,) share of the feature's map on the part of that
    attribute, on birds that have it. part_area : (n,) share of the picture that part covers: chance.
    """

    explained: Float[np.ndarray, "n attributes"]
    attributes: tuple[str, ...]
    best: Int[np.ndarray, "n"]
    purity: Float[np.ndarray, "n"]
    on_part: Float[np.ndarray, "n"]
    part_area: Float[np.ndarray, "n"]


def feature_purity(
    features: Callable[[Sequence[Image.Image]], tuple[Float[Tensor, "batch n g g"], Float[Tensor, "batch n"]]],
    *,
    n_birds: int = 600,
    seed: int = 0,
    batch_size: int = 50,
) -> Purity:
    """Draw random birds and ask which single part variant each feature answers to, and whether its map lies there.

    In the species of a data set variants come together, so that a feature of the beak may look like one of the tail. Random birds have
    every variant independently; their species are not those of the data set.

    Parameters
    ----------
    features : pictures -> (maps (B, n, g, g), vector (B, n)).

    Raises
    ------
    ValueError : for fewer than 10 birds.
    """
    if n_birds < 10:
        raise ValueError(f"n_birds (={n_birds}) must be at least 10: shares of variance need a sample")
    rng = np.random.default_rng([seed, 53])
    birds = [random_bird(rng) for _ in range(n_birds)]
    scenes = rng.integers(2**31, 2**32, n_birds)  # far from the seeds of data sets
    vectors, shares, areas = [], [], []
    for start in progress(range(0, n_birds, batch_size), "random birds"):
        drawn = [render(birds[i], int(scenes[i])) for i in range(start, min(start + batch_size, n_birds))]
        maps, vector = features([Image.fromarray(d.image) for d in drawn])
        parts = np.stack([d.parts for d in drawn])
        shares.append(part_importance(maps, parts))
        areas.append(part_importance(torch.ones_like(maps[:, :1]), parts)[:, 0])
        vectors.append(vector.float().cpu().numpy())
    x, on, area = np.concatenate(vectors), np.concatenate(shares), np.concatenate(areas)
    has = np.array([present(bird) for bird in birds])
    explained = _squared_correlation(x, has.astype(float))
    best = explained.argmax(1)
    part = np.array([PARTS.index(FACTOR_PART[a.split("::")[0]]) - 1 for a in ATTRIBUTES])[best]
    on_part, part_area = np.empty(len(best)), np.empty(len(best))
    for f, (a, p) in enumerate(zip(best, part, strict=True)):
        rows = has[:, a] & (area[:, p] > 0)
        on_part[f], part_area[f] = (on[rows, f, p].mean(), area[rows, p].mean()) if rows.any() else (0.0, 0.0)
    return Purity(explained, ATTRIBUTES, best, explained.max(1), on_part, part_area)


def _squared_correlation(
    x: Float[np.ndarray, "n features"], y: Float[np.ndarray, "n attributes"]
) -> Float[np.ndarray, "features attributes"]:
    """Squared Pearson correlation; zero where a column is constant."""
    x, y = x - x.mean(0), y - y.mean(0)
    size = np.sqrt((x**2).sum(0))[:, None] * np.sqrt((y**2).sum(0))[None]
    return np.divide(x.T @ y, size, out=np.zeros_like(size), where=size > 1e-12) ** 2
