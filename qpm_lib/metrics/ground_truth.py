"""Explanations against the truth, which rendered pictures have: every part can be drawn away (after FunnyBirds,
ICCV 2023), so what each part is worth to a model is known exactly.

Nothing here knows how an explanation is made: `explain(images, targets) -> maps (B, g, g)` is the contract of
`qpm_lib.explain`, and the model is known by its `ExactParts`. The checks:

- correctness: the map ranks the parts as their exact values per area do, given their areas.
- contrastivity: the part that gains most from the map of the twin class to that of the class is the one that adds most
  to the lead of the class, per area.
- distractibility: the map is stronger on parts that matter than on parts and clutter that do not.

Every check is read as a skill: 0 is the mean of random maps, 1 the best map that can be painted on the patch grid
from the exact values, both on the same pictures and through the same code.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from PIL import Image
from torch import Tensor

from qpm_lib.core import progress
from qpm_lib.data import CLUTTER, FACTOR_PART, FACTORS, PARTS, Bird, ImageDataset, Scenes
from qpm_lib.metrics.agreement import decisive_part, focus, rank_agreement
from qpm_lib.metrics.exact_answers import ExactParts, shapley
from qpm_lib.metrics.parts import VARIED, coverage, paint, read_out
from qpm_lib.metrics.skill import CHECKS, PartChecks

Maps = Float[np.ndarray, "targets g g"]
Explain = Callable[[Sequence[Image.Image], Int[Tensor, "batch"]], Float[Tensor, "batch g g"]]
_SMALL = 0.05  # of the sum of |values|: a part that hardly matters
_VISIBLE_PIXELS, _VISIBLE_CHANGE = 8, 8  # of a part; of 255, above the noise


def twin(species: Sequence[Bird], label: int) -> tuple[int, str] | None:
    """The species that differs in one part only, and that part; None when there is none."""
    for c, bird in enumerate(species):
        parts = {FACTOR_PART[factor] for factor in FACTORS if getattr(bird, factor) != getattr(species[label], factor)}
        if c != label and len(parts) == 1:
            return c, parts.pop()
    return None


class PictureTruth(NamedTuple):
    """What is true of one picture and one model.

    Attributes
    ----------
    target : predicted class. rival : its twin, or None. visible : (V,) positions in `VARIED` of the parts that can be
    seen. area : (9,) pixels of each part and of clutter. value, lead : (8,) exact value of each part for the target's
    score, and for its lead over the rival. covered : (10, g, g) share of each patch on each part, on clutter and on the
    rest. matters : (9,) for parts and clutter: 1 where it does, -1 where not, 0 where there is none.
    weights : (10, g, g) `read_out` of `covered`.
    """

    image: Image.Image
    target: int
    rival: int | None
    visible: Int[np.ndarray, "visible"]
    area: Float[np.ndarray, "things"]
    value: Float[np.ndarray, "parts"]
    lead: Float[np.ndarray, "parts"] | None
    covered: Float[np.ndarray, "regions g g"]
    matters: Int[np.ndarray, "things"]
    weights: Float[np.ndarray, "regions g g"]

    def per_area(self, value: Float[np.ndarray, "parts"]) -> Float[np.ndarray, "parts"]:
        """Value of each part per pixel."""
        return value / self.area[:-1].clip(1)

    def score(
        self, maps: Float[np.ndarray, "maps g g"], rivals: Float[np.ndarray, "maps g g"] | None
    ) -> dict[str, Float[np.ndarray, "maps"]]:
        """Raw scores of m maps for the target (and m for the rival) in each check that this picture allows."""
        seen, found = self.weights[self.visible], {}
        if len(seen) > 2:
            true = self.per_area(self.value)[self.visible]
            found["correctness"] = rank_agreement(_said(maps, seen), true, self.area[self.visible])
        lead = None if self.lead is None else self.per_area(self.lead)[self.visible]
        if rivals is not None and lead is not None and len(lead) > 1 and lead.max() > 0:
            found["contrastivity"] = decisive_part(_said(maps - rivals, seen), lead)
        if (self.matters > 0).any() and (self.matters < 0).any():
            there = np.flatnonzero(self.matters)
            strength = _said(np.abs(maps), self.weights[there])
            found["distractibility"] = focus(strength, self.area[there], self.matters[there] > 0)
        return found

    def ceiling(self) -> dict[str, Float[np.ndarray, "one"]]:
        """Raw scores of the best map for each check: the exact answer, painted on the patch grid."""
        answers = {"correctness": self.per_area(self.value), "distractibility": (self.matters > 0).astype(float)}
        if self.lead is not None:
            answers["contrastivity"] = self.per_area(self.lead)
        found = {}
        for check, answer in answers.items():
            painted = paint(answer, self.covered[: len(answer)])[None]
            scores = self.score(painted, np.zeros_like(painted))
            found |= {check: scores[check]} if check in scores else {}
        return found


def _said(
    maps: Float[np.ndarray, "maps g g"], weights: Float[np.ndarray, "parts g g"]
) -> Float[np.ndarray, "maps parts"]:
    return np.einsum("m y x, p y x -> m p", maps, weights)


def picture_truths(exact: ExactParts, dataset: ImageDataset, scenes: Scenes, grid: int) -> list[PictureTruth]:
    """The truth about every picture of `exact`, for maps on a g x g grid, for the predicted class of each."""
    return [_truth(exact, i, dataset, scenes, grid) for i in range(len(exact.rows))]


def _truth(exact: ExactParts, i: int, dataset: ImageDataset, scenes: Scenes, grid: int) -> PictureTruth:
    row, target = int(exact.rows[i]), int(exact.predicted[i])
    whole, bare = scenes.render(dataset, row), scenes.render(dataset, row, without=(CLUTTER,))
    regions = [whole.parts == PARTS.index(part) for part in VARIED]
    changed = np.abs(whole.image.astype(int) - bare.image).max(2) > _VISIBLE_CHANGE
    regions.append(changed & (whole.parts == 0))
    regions.append(~np.any(regions, axis=0))
    area = np.array([float(region.sum()) for region in regions])
    other, logits = twin(scenes.species, target), exact.logits[i].astype(np.float64)
    value = shapley(logits[:, target])
    lead = shapley(logits[:, target] - logits[:, other[0]]) if other else None
    change = np.append(value, logits[-1, target] - exact.without_clutter[i, target])
    covered = coverage(np.stack(regions), grid)
    seen = area[:-1] >= _VISIBLE_PIXELS
    return PictureTruth(
        image=dataset.image(row),
        target=target,
        rival=other[0] if other else None,
        visible=np.flatnonzero(seen[:-1]),
        area=area[:-1],
        value=value,
        lead=lead,
        covered=covered,
        weights=read_out(covered),
        matters=np.where(np.abs(change) >= _SMALL * np.abs(value).sum(), 1, -1) * seen,
    )


def maps_for(explain: Explain, truths: Sequence[PictureTruth]) -> list[Maps]:
    """Maps of an explanation for every picture: for the target, and, where it has one, for the rival; asked at once.

    Raises
    ------
    ValueError : for maps that are not on the grid of the truths.
    """
    return [_maps(explain, truth) for truth in progress(truths, "explaining pictures")]


def part_checks(
    explain: Explain | Sequence[Maps], truths: Sequence[PictureTruth], *, n_random: int = 100, seed: int = 0
) -> PartChecks:
    """Check an explanation of the predicted class of each picture against what is true of picture and model.

    Parameters
    ----------
    explain : an explanation, or what `maps_for` made with it. truths : see `picture_truths`. n_random : random maps per
        picture that say where zero is.

    Raises
    ------
    ValueError : for an empty list of pictures, or maps that are not on the grid of the truths.
    """
    if not len(truths):
        raise ValueError("no pictures were given to check: choose at least one row")
    rows: dict[str, list[dict[str, float]]] = {"scores": [], "random": [], "ceiling": []}
    given = maps_for(explain, truths) if callable(explain) else explain
    for i, (truth, maps) in enumerate(zip(truths, given, strict=True)):
        grid, own, rival = truth.covered.shape[-1], maps[:1], maps[1:] if len(maps) > 1 else None
        rng = np.random.default_rng([seed, 71, i])
        noise, other = rng.random((2, n_random, grid, grid))
        for name, scores in (
            ("scores", truth.score(own, rival)),
            ("random", truth.score(noise, other)),
            ("ceiling", truth.ceiling()),
        ):
            rows[name].append({check: float(values.mean()) for check, values in scores.items()})
    return PartChecks(**{name: _columns(found) for name, found in rows.items()})


def _maps(explain: Explain, truth: PictureTruth) -> Maps:
    asked = [truth.target] if truth.rival is None else [truth.target, truth.rival]
    maps, wanted = explain([truth.image] * len(asked), torch.tensor(asked)), (len(asked), *truth.covered.shape[1:])
    if tuple(maps.shape) != wanted:
        raise ValueError(f"the explanation gave maps of shape {tuple(maps.shape)}, not {wanted}")
    return maps.detach().double().cpu().numpy()


def _columns(rows: Sequence[Mapping[str, float]]) -> dict[str, Float[np.ndarray, "rows"]]:
    return {check: np.array([row.get(check, np.nan) for row in rows]) for check in CHECKS}
