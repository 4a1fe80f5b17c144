"""Scores of several methods on the same pictures: means with intervals, all differences with a correction for their
number, and how well two measures agree over methods.

Pictures are drawn again, for all methods and models alike: what differs between pictures alone then cancels.
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from itertools import combinations
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from qpm_lib.metrics.skill import PartChecks

_RESAMPLES, _FEW, _CHUNK = 20000, 2000, 32


class Scores(NamedTuple):
    """Scores of one explanation: a row for each model (of several seeds, say), a column for each picture.

    `zero` and `one` are the scores that count as 0 and as 1 on that picture. NaN where a picture does not allow it.
    """

    values: Float[np.ndarray, "models pictures"]
    zero: Float[np.ndarray, "models pictures"]
    one: Float[np.ndarray, "models pictures"]

    @classmethod
    def plain(cls, values: Float[np.ndarray, "models pictures"]) -> "Scores":
        """Scores on their own scale."""
        return cls(values, np.zeros_like(values), np.ones_like(values))

    @classmethod
    def of_checks(cls, checks: Sequence[PartChecks], check: str) -> "Scores":
        """One check of a method, on several models."""
        return cls(*(np.stack([getattr(c, of)[check] for c in checks]) for of in ("scores", "random", "ceiling")))

    @property
    def there(self) -> Bool[np.ndarray, "models pictures"]:
        """Pictures that allow the measure."""
        return np.isfinite(self.values) & np.isfinite(self.zero) & np.isfinite(self.one)


class Estimate(NamedTuple):
    """A value with its 95 % bootstrap interval, and the pictures (or methods) it was taken over."""

    value: float
    low: float
    high: float
    count: int


class Difference(NamedTuple):
    """Mean score of one method minus that of another: 95 % bootstrap interval over pictures; p, two-sided, from the
    same resamples, corrected for the number of comparisons (Holm 1979).

    `effect`: mean over pictures of the difference, in standard deviations of it (Cohen's d of paired samples).
    """

    value: float
    low: float
    high: float
    p: float
    effect: float
    pictures: int


def mean_score(scores: Scores, *, seed: int = 0) -> Estimate | None:
    """Mean over models of (mean score - zero) / (one - zero); None where no picture allows it.

    Models that allow it nowhere are left out. 2000 resamples of pictures.
    """
    there = scores.there
    if not there.any():
        return None
    ratio = _ratios(_weights(there.shape[1], seed, _FEW), *_parts(scores))
    low, high = np.nanpercentile(ratio[1:], [2.5, 97.5]).tolist()
    return Estimate(float(ratio[0]), low, high, int(there.any(0).sum()))


def differences(
    scores: Mapping[str, Scores], *, against: str | None = None, seed: int = 0
) -> dict[tuple[str, str], Difference]:
    """How much better each method is than each other, on the same pictures and models.

    Where a picture does not allow the measure for both of a pair, it does not count for that pair; pairs without
    pictures in common are left out. p values are corrected for the number of pairs.

    Parameters
    ----------
    against : compare this method with all others, and no other pair: fewer comparisons, so less to correct for. (Choose
        it before looking at the scores.)

    Raises
    ------
    ValueError : for methods that were not measured on the same models and pictures, or `against` a method that was not.
    """
    if against is not None and against not in scores:
        raise ValueError(f"method {against!r} was not measured: choose from {', '.join(scores)}")
    shapes = {name: found.values.shape for name, found in scores.items()}
    if other := [name for name, shape in shapes.items() if shape != next(iter(shapes.values()))]:
        raise ValueError(f"method {other[0]!r} was not measured on the same models and pictures")
    names = [against, *(n for n in scores if n != against)] if against else list(scores)
    pairs = [(a, b) for a, b in combinations(names, 2) if against in (None, a)]
    pairs = [(a, b) for a, b in pairs if (scores[a].there & scores[b].there).any()]
    if not pairs:
        return {}
    both = np.stack([scores[a].there & scores[b].there for a, b in pairs])
    apart = np.stack([scores[a].values - scores[b].values for a, b in pairs])
    room = np.stack([scores[a].one - scores[a].zero for a, _ in pairs])
    weights, found = _weights(both.shape[2], seed, _RESAMPLES), {}
    for start in range(0, len(pairs), _CHUNK):
        part = slice(start, start + _CHUNK)
        ratios = _ratios(weights, np.where(both[part], apart[part], 0), np.where(both[part], room[part], 0))
        for pair, ratio, gap, there in zip(pairs[part], ratios, apart[part], both[part], strict=True):
            found[pair] = _difference(ratio, gap, there)
    return _holm(found)


def _difference(
    ratio: Float[np.ndarray, "resamples"],
    apart: Float[np.ndarray, "models pictures"],
    there: Bool[np.ndarray, "models pictures"],
) -> Difference:
    spread = ratio[1:][np.isfinite(ratio[1:])]
    low, high = np.percentile(spread, [2.5, 97.5]).tolist() if len(spread) else (np.nan, np.nan)
    p = 2 * (1 + min((spread <= 0).sum(), (spread >= 0).sum())) / (len(spread) + 1)
    return Difference(float(ratio[0]), low, high, min(1.0, float(p)), *_effect(apart, there))


def agreement_over_methods(one: Mapping[str, Scores], other: Mapping[str, Scores], *, seed: int = 0) -> Estimate | None:
    """Do two measures put methods into the same order? Spearman's correlation of their mean scores over the methods
    that both have; the 95 % interval resamples pictures and methods, 2000 times. None for fewer than four methods.
    """
    names = [n for n in one if n in other and one[n].there.any() and other[n].there.any()]
    if len(names) < 4:
        return None
    rng = np.random.default_rng([seed, 89])
    weights = _weights(one[names[0]].values.shape[1], seed, _FEW)
    means = [np.stack([_ratios(weights, *_parts(of[n])) for n in names], 1) for of in (one, other)]
    drawn = rng.integers(0, len(names), (_FEW, len(names)))
    drawn = np.concatenate([np.arange(len(names))[None], drawn])
    pair = [np.take_along_axis(values, drawn, 1) for values in means]
    found = _spearman(*pair)
    low, high = np.nanpercentile(found[1:], [2.5, 97.5]).tolist()
    return Estimate(float(found[0]), low, high, len(names))


def _parts(scores: Scores) -> tuple[Float[np.ndarray, "models pictures"], Float[np.ndarray, "models pictures"]]:
    """What stands above zero, and the room between zero and one; 0 where a picture does not allow it."""
    there = scores.there
    return np.where(there, scores.values - scores.zero, 0), np.where(there, scores.one - scores.zero, 0)


@lru_cache(maxsize=2)
def _weights(pictures: int, seed: int, resamples: int) -> Float[np.ndarray, "resamples pictures"]:
    """How often each picture counts: once each, then drawn with replacement."""
    rng = np.random.default_rng([seed, 73])
    drawn = rng.multinomial(pictures, np.full(pictures, 1 / pictures), resamples)
    return np.concatenate([np.ones((1, pictures)), drawn])


def _ratios(
    weights: Float[np.ndarray, "resamples pictures"],
    above: Float[np.ndarray, "*any models pictures"],
    room: Float[np.ndarray, "*any models pictures"],
) -> Float[np.ndarray, "*any resamples"]:
    """Mean over models of sum / sum, over the models that allow it; NaN where none does."""
    up, size = (np.moveaxis(np.tensordot(weights, values, (1, -1)), 0, -1) for values in (above, room))
    allowed = size > 1e-9
    each = np.divide(up, size, out=np.zeros_like(up), where=allowed)
    count = allowed.sum(-2)
    return np.divide(each.sum(-2), count, out=np.full(count.shape, np.nan), where=count > 0)


def _effect(
    apart: Float[np.ndarray, "models pictures"], there: Bool[np.ndarray, "models pictures"]
) -> tuple[float, int]:
    count = there.sum(0)
    each = (np.where(there, apart, 0).sum(0) / count.clip(1))[count > 0]
    spread = float(each.std(ddof=1)) if len(each) > 1 else 0.0
    return (float(each.mean()) / spread if spread > 1e-12 else float("nan")), len(each)


def _spearman(a: Float[np.ndarray, "rows n"], b: Float[np.ndarray, "rows n"]) -> Float[np.ndarray, "rows"]:
    from scipy.stats import rankdata  # slow to import

    a, b = (rankdata(values, axis=1) for values in (a, b))
    a, b = (ranks - ranks.mean(1, keepdims=True) for ranks in (a, b))
    size = np.sqrt((a**2).sum(1) * (b**2).sum(1))
    return np.divide((a * b).sum(1), size, out=np.full(len(a), np.nan), where=size > 0)


def _holm(found: Mapping[tuple[str, str], Difference]) -> dict[tuple[str, str], Difference]:
    corrected, least = {}, 0.0
    for rank, pair in enumerate(sorted(found, key=lambda n: found[n].p)):
        least = max(least, min(1.0, found[pair].p * (len(found) - rank)))
        corrected[pair] = found[pair]._replace(p=least)
    return {pair: corrected[pair] for pair in found}
