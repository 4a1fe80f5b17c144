"""Scores of explanations as skills: 0 is a random map, 1 the best map that can be painted; and how two methods compare
on the same pictures.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

CHECKS = ("correctness", "contrastivity", "distractibility")
_RESAMPLES, _MANY = 2000, 10000


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


class Difference(NamedTuple):
    """Skill of one method minus that of another, mean over models: 95 % bootstrap interval over pictures, and p,
    two-sided, from the same resamples, corrected for the number of methods.
    """

    value: float
    low: float
    high: float
    p: float
    pictures: int


def skill_differences(
    own: Sequence[PartChecks], others: Mapping[str, Sequence[PartChecks]], check: str, *, seed: int = 0
) -> dict[str, Difference]:
    """How much better one explanation is than each of several others, on the same pictures and models.

    A method has one `PartChecks` for each model (of several seeds, say), all over the same pictures in the same order.
    In each of 10,000 resamples the pictures are drawn again, for all models and methods alike; a picture that a model
    does not allow counts for the other models only. p values are corrected by Holm (1979). Empty where no picture
    allows the check.

    Raises
    ------
    ValueError : for methods that were not checked on the same models and pictures.
    """
    columns = {name: _columns(checks, check) for name, checks in {"": own, **others}.items()}
    for name, found in columns.items():
        if found.shape != columns[""].shape or (np.isnan(found) != np.isnan(columns[""])).any():
            raise ValueError(f"method {name!r} was not checked on the same models and pictures")
    there = np.isfinite(columns[""]).any((0, 2))
    if not there.any():
        return {}
    pictures = len(there)
    drawn = np.random.default_rng([seed, 73]).multinomial(pictures, np.full(pictures, 1 / pictures), _MANY)
    weights = np.concatenate([np.ones((1, pictures)), drawn])
    means = {name: _over_models(weights, found) for name, found in columns.items()}
    found = {}
    for name in others:
        value, spread = float((means[""] - means[name])[0]), (means[""] - means[name])[1:]
        spread = spread[np.isfinite(spread)]
        low, high = np.percentile(spread, [2.5, 97.5]).tolist() if len(spread) else (np.nan, np.nan)
        p = 2 * (1 + min((spread <= 0).sum(), (spread >= 0).sum())) / (len(spread) + 1)
        found[name] = Difference(value, low, high, min(1.0, float(p)), int(there.sum()))
    return _holm(found)


def _columns(checks: Sequence[PartChecks], check: str) -> Float[np.ndarray, "models pictures three"]:
    return np.stack([np.stack([c.scores[check], c.random[check], c.ceiling[check]], 1) for c in checks])


def _over_models(
    weights: Float[np.ndarray, "resamples pictures"], columns: Float[np.ndarray, "models pictures three"]
) -> Float[np.ndarray, "resamples"]:
    sums = np.einsum("r p, m p t -> r m t", weights, np.nan_to_num(columns))
    return _ratio(sums[:, np.isfinite(columns).any((1, 2))]).mean(1)  # models that allow the check somewhere


def _holm(found: Mapping[str, Difference]) -> dict[str, Difference]:
    corrected, least = {}, 0.0
    for rank, name in enumerate(sorted(found, key=lambda n: found[n].p)):
        least = max(least, min(1.0, found[name].p * (len(found) - rank)))
        corrected[name] = found[name]._replace(p=least)
    return {name: corrected[name] for name in found}
