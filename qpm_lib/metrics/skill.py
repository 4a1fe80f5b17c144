"""Scores of explanations as skills: 0 is a random map, 1 the best map that can be painted."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

CHECKS = ("correctness", "contrastivity", "distractibility")
_RESAMPLES = 2000


class Skill(NamedTuple):
    """One check: skill with its 95 % bootstrap interval over pictures, and the raw means it is made of."""

    value: float
    low: float
    high: float
    score: float
    random: float
    ceiling: float
    pictures: int


@dataclass(frozen=True)
class PartChecks:
    """Scores of an explanation in each check, picture by picture; NaN where a picture does not allow a check.

    Attributes
    ----------
    scores, random, ceiling : by the names of `CHECKS`, (R,) raw scores of the explanation, mean raw scores of random
        maps, raw scores of the best map.
    """

    scores: Mapping[str, Float[np.ndarray, "rows"]]
    random: Mapping[str, Float[np.ndarray, "rows"]]
    ceiling: Mapping[str, Float[np.ndarray, "rows"]]

    def skill(self, check: str, *, seed: int = 0) -> Skill | None:
        """Skill of the explanation in a check; None when no picture allows it.

        (mean score - mean of random maps) / (mean of the best maps - mean of random maps), 2000 resamples of pictures.

        Raises
        ------
        ValueError : for an unknown check.
        """
        if check not in CHECKS:
            raise ValueError(f"unknown check {check!r}: choose from {', '.join(CHECKS)}")
        columns = np.stack([self.scores[check], self.random[check], self.ceiling[check]], 1)
        columns = columns[np.isfinite(columns).all(1)]
        if not len(columns):
            return None
        drawn = np.random.default_rng([seed, 67]).integers(0, len(columns), (_RESAMPLES, len(columns)))
        spread = _ratio(columns[drawn].mean(1))
        score, random, ceiling = columns.mean(0).tolist()
        low, high = np.nanpercentile(spread, [2.5, 97.5]).tolist()
        return Skill(float(_ratio(columns.mean(0))), low, high, score, random, ceiling, len(columns))


def skill_rows(skills: Mapping[tuple[str, str], Sequence[Skill | None]]) -> list[tuple[str, ...]]:
    """A table of skills by model and map, in the order of `CHECKS`: a head, then a row each, with intervals."""
    rows = [("model", "map", *CHECKS)]
    for (model, title), found in skills.items():
        cells = ("n/a" if s is None else f"{s.value:.2f} [{s.low:.2f}, {s.high:.2f}]" for s in found)
        rows.append((model, title, *cells))
    return rows


def _ratio(means: Float[np.ndarray, "*any three"]) -> Float[np.ndarray, "*any"]:
    score, random, ceiling = np.moveaxis(means, -1, 0)
    room = ceiling - random
    return np.divide(score - random, room, out=np.full_like(room, np.nan), where=room > 1e-9)
