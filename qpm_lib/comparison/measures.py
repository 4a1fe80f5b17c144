"""The measures of a comparison: what each asks, what it favours by its construction, and how it is taken.

A map that is the same everywhere shows nothing: it scores 0 where a measure is not defined for it.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int

from qpm_lib.comparison.case import Build, Case
from qpm_lib.metrics import (
    CHECKS,
    ExactParts,
    box_sensitivity,
    compactness,
    deletion,
    insertion,
    map_correlation,
    part_checks,
    part_deletion,
    randomisation_check,
)

Maps = Float[np.ndarray, "pictures two g g"]
Three = Float[np.ndarray, "three n"]  # score, what counts as 0, what counts as 1
COST = "cost"  # seconds, forward passes and memory of a map
STEPS = 11  # versions of a picture with holes, from whole to empty
_SHUFFLED = 16  # pictures on which weights are shuffled
Some = Int[np.ndarray, "some"]
Take = Callable[[Case, Maps, Some, Build | None], dict[str, Three]]


class Measure(NamedTuple):
    """`title` for tables; `kind`: `truth` (pictures are drawn again), `holes` (patches are taken away), `form` (the
    maps alone, or the model changed); `asks`, and what it `favours` by construction. Larger is better in all of them.
    """

    title: str
    kind: str
    asks: str
    favours: str


_HOLES = "insertion - deletion: how much sooner the class comes back than it goes, patches in the order of the map"
MEASURES: Mapping[str, Measure] = {
    "correctness": Measure(
        "correctness", "truth", "parts are ranked as their exact values per area", "maps that are even on a part"
    ),
    "contrastivity": Measure(
        "contrastivity", "truth", "the part that tells class and twin apart gains most", "methods that know the class"
    ),
    "distractibility": Measure(
        "distractibility", "truth", "what does not matter is dark", "maps that are zero on most of the picture"
    ),
    "parts_drawn_away": Measure(
        "parts drawn away", "truth", "the score falls fast when parts go in the order of the map", "maps on large parts"
    ),
    "holes_mean": Measure("holes, mean colour", "holes", _HOLES, "maps that were trained on it; maps on the object"),
    "holes_blur": Measure("holes, blurred", "holes", _HOLES, "maps on fine structure"),
    "holes_black": Measure("holes, black", "holes", _HOLES, "maps on bright places"),
    "holes_road": Measure("holes, ROAD", "holes", _HOLES, "maps on what neighbours do not tell"),
    "holes_tokens": Measure("tokens deleted", "holes", _HOLES, "methods that delete tokens"),
    "box_sensitivity": Measure(
        "box sensitivity",
        "holes",
        "more of the map in a box, more lost with it",
        "any map: larger boxes have more of it",
    ),
    "compactness": Measure("compactness", "form", "share of the patches under 5 % of the peak", "maps of few patches"),
    "class_sensitivity": Measure(
        "class sensitivity", "form", "the maps of class and rival differ (1 - correlation)", "noise; signed maps"
    ),
    "randomised": Measure(
        "depends on weights",
        "form",
        "the map changes when head and blocks are shuffled (1 - rank correlation)",
        "noise that comes from the model",
    ),
}


def _truth(case: Case, maps: Maps, some: Some, _: Build | None) -> dict[str, Three]:
    truths = [case.truths[i] for i in some]
    given = [m[:1] if truth.rival is None else m for m, truth in zip(maps[some], truths, strict=True)]
    checks = part_checks(given, truths, seed=case.seed)
    found = {c: np.stack([checks.scores[c], checks.random[c], checks.ceiling[c]]) for c in CHECKS}
    exact = ExactParts(case.exact.rows[some], case.exact.logits[some], case.exact.without_clutter[some])
    gone = part_deletion(given, exact, truths, seed=case.seed)
    return {**found, "parts_drawn_away": np.stack([gone["scores"], gone["random"], gone["ceiling"]])}


def _holes(fill: str) -> Take:
    def take(case: Case, maps: Maps, some: Some, _: Build | None) -> dict[str, Three]:
        images, labels = case.some(some)
        asked = images, torch.tensor(maps[some, 0]).float(), labels
        options = {"fill": fill, "steps": STEPS, "seed": case.seed}
        gap = insertion(case.target, *asked, **options) - deletion(case.target, *asked, **options)
        return {f"holes_{fill}": _plain(gap)}

    return take


def _boxes(case: Case, maps: Maps, some: Some, _: Build | None) -> dict[str, Three]:
    scores = box_sensitivity(torch.tensor(maps[some, 0]).float(), case.some(some)[1], case.boxes(some))
    return {"box_sensitivity": _plain(np.nan_to_num(scores))}


def _form(case: Case, maps: Maps, some: Some, _: Build | None) -> dict[str, Three]:
    own, rival = (torch.tensor(maps[some, i]).float() for i in (0, 1))
    differ = np.nan_to_num(1 - map_correlation(own, rival))
    return {"compactness": _plain(np.nan_to_num(compactness(own))), "class_sensitivity": _plain(differ)}


def _randomised(case: Case, maps: Maps, some: Some, build: Build | None) -> dict[str, Three]:
    if build is None:
        return {"randomised": _plain(np.full(len(some), np.nan))}
    found = randomisation_check(build, case.target, *case.some(some), seed=case.seed, cascade=False)
    return {"randomised": _plain(1 - found.spearman[-1])}


def _plain(scores: Float[np.ndarray, "n"]) -> Three:
    return np.stack([scores, np.zeros_like(scores), np.ones_like(scores)])


class Unit(NamedTuple):
    """Measures that are taken at once."""

    names: tuple[str, ...]
    take: Take

    def on(self, count: int, holes: int | None) -> Some:
        """Numbers of the pictures that it is taken on, of so many, spread over them."""
        limited = holes is not None and MEASURES[self.names[0]].kind == "holes"
        few = _SHUFFLED if self.names == ("randomised",) else holes if limited else count
        return np.unique(np.linspace(0, count - 1, min(few, count)).astype(int))


_UNITS = (
    Unit((*CHECKS, "parts_drawn_away"), _truth),
    Unit(("compactness", "class_sensitivity"), _form),
    *(Unit((f"holes_{fill}",), _holes(fill)) for fill in ("mean", "tokens", "blur", "black", "road")),
    Unit(("box_sensitivity",), _boxes),
    Unit(("randomised",), _randomised),
)


def units(case: Case, wanted: tuple[str, ...]) -> list[Unit]:
    """What is to be taken for some measures, as far as the model and its pictures allow them."""
    found = []
    for unit in _UNITS:
        if not set(unit.names) & set(wanted):
            continue
        if MEASURES[unit.names[0]].kind == "truth" and case.truths is None:
            continue
        if unit.names == ("holes_tokens",) and not case.target.backbone.is_transformer:
            continue
        found.append(unit)
    return found


def chosen(names: tuple[str, ...] | None) -> tuple[str, ...]:
    """Names of measures, where a kind stands for all of its measures, and `cost`; None is all.

    Raises
    ------
    ValueError : for a name that is neither.
    """
    kinds = (*dict.fromkeys(m.kind for m in MEASURES.values()), COST)
    found: list[str] = []
    for name in names or kinds:
        if name not in MEASURES and name not in kinds:
            raise ValueError(f"unknown measure {name!r}: choose from {', '.join((*kinds, *MEASURES))}")
        found += [m for m, measure in MEASURES.items() if name in (m, measure.kind)]
    return (*(m for m in MEASURES if m in found), *((COST,) if COST in (names or kinds) else ()))
