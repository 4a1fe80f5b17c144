"""Scores of several methods on the same pictures: means with intervals, all differences with a correction for their
number, and how well two measures agree over methods.

Everything is done picture by picture, for all methods and models alike: what differs between pictures alone cancels.
"""

from collections.abc import Mapping
from functools import lru_cache
from itertools import combinations
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

_DRAWS, _FEW, _CHUNK = 20000, 2000, 32
_FEWEST = 5  # pictures for an interval


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

    @property
    def there(self) -> Bool[np.ndarray, "models pictures"]:
        """Pictures that allow the measure."""
        return np.isfinite(self.values) & np.isfinite(self.zero) & np.isfinite(self.one)


class Estimate(NamedTuple):
    """A value with its 95 % interval (NaN for fewer than five pictures, whose resamples cannot hold it), and the
    pictures (or methods) it was taken over.
    """

    value: float
    low: float
    high: float
    count: int


class Difference(NamedTuple):
    """Mean score of one method minus that of another: 95 % bootstrap interval over pictures; p, two-sided, of the test
    that exchanges the two methods on pictures by lot, corrected for the number of comparisons (Holm 1979).

    `effect`: the mean of what each picture contributes, in standard deviations of it (Cohen's d of paired samples).
    """

    value: float
    low: float
    high: float
    p: float
    effect: float
    pictures: int


def mean_score(scores: Scores, *, seed: int = 0) -> Estimate | None:
    """Mean over models of (mean score - zero) / (one - zero), with an interval from 2000 resamples of pictures; None
    where no picture allows it. Models that allow it nowhere are left out.
    """
    there = scores.there
    ratio = _ratios(_weights(there.shape[1], seed, _FEW), *_parts(scores))
    if not np.isfinite(ratio[0]):
        return None
    count = int(there.any(0).sum())
    return Estimate(float(ratio[0]), *_interval(ratio[1:], count), count)


def differences(
    scores: Mapping[str, Scores], *, against: str | None = None, seed: int = 0
) -> dict[tuple[str, str], Difference]:
    """How much better each method is than each other, on the same pictures and models.

    Where a picture does not allow the measure for both of a pair, it does not count for that pair; pairs without
    pictures in common are left out. 20,000 resamples for intervals, and as many exchanges for p (so that p cannot be
    smaller than 2 / 2^n with n pictures: few pictures prove nothing).

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
    found: dict[tuple[str, str], Difference] = {}
    for start in range(0, len(pairs), _CHUNK):
        some = pairs[start : start + _CHUNK]
        both = np.stack([scores[a].there & scores[b].there for a, b in some])
        apart = np.where(both, np.stack([scores[a].values - scores[b].values for a, b in some]), 0)
        room = np.where(both, np.stack([scores[a].one - scores[a].zero for a, _ in some]), 0)
        ratios = _ratios(_weights(both.shape[2], seed, _DRAWS), apart, room)
        each = _contributions(apart, room)
        exchanged = np.tensordot(_signs(both.shape[2], seed), each, (1, 1)).T
        for pair, ratio, own, turned, there in zip(some, ratios, each, exchanged, both.any(1), strict=True):
            if np.isfinite(ratio[0]):
                found[pair] = _difference(ratio, own[there], turned)
    return _holm(found)


def _difference(
    ratio: Float[np.ndarray, "draws"], own: Float[np.ndarray, "pictures"], turned: Float[np.ndarray, "exchanges"]
) -> Difference:
    spread = float(own.std(ddof=1)) if len(own) > 1 else 0.0
    effect = float(own.mean()) / spread if spread > 1e-15 else float("nan")
    as_far = (np.abs(turned) >= abs(float(own.sum())) - 1e-12).sum()
    p = (1 + int(as_far)) / (len(turned) + 1)
    return Difference(float(ratio[0]), *_interval(ratio[1:], len(own)), p, effect, len(own))


def agreement_over_methods(one: Mapping[str, Scores], other: Mapping[str, Scores], *, seed: int = 0) -> Estimate | None:
    """Do two measures put methods into the same order? Spearman's correlation of mean scores over the methods that both
    have, one measure on one half of the pictures and the other on the rest: on the same pictures both would follow what
    a method happens to show there. Mean over 2000 halves; the 95 % interval draws methods anew as well.

    With few pictures the value is small whatever the measures are: compare it with that of a measure with itself. None
    for fewer than four methods, or fewer than four pictures.
    """
    names = [n for n in one if n in other and one[n].there.any() and other[n].there.any()]
    pictures = next(iter(one.values())).values.shape[1] if one else 0
    if len(names) < 4 or pictures < 4:
        return None
    rng = np.random.default_rng([seed, 89])
    half = (rng.permuted(np.tile(np.arange(pictures), (_FEW, 1)), axis=1) < pictures // 2).astype(float)
    halves = zip((half, 1 - half), (one, other), strict=True)
    means = [np.stack([_ratios(weights, *_parts(of[n])) for n in names], 1) for weights, of in halves]
    whole = np.isfinite(means[0]).all(1) & np.isfinite(means[1]).all(1)
    if whole.sum() < _FEW // 2:
        return None
    means = [values[whole] for values in means]
    drawn = rng.integers(0, len(names), means[0].shape)
    low, high = np.nanpercentile(_spearman(*(np.take_along_axis(m, drawn, 1) for m in means)), [2.5, 97.5]).tolist()
    return Estimate(float(np.nanmean(_spearman(*means))), low, high, len(names))


def _parts(scores: Scores) -> tuple[Float[np.ndarray, "models pictures"], Float[np.ndarray, "models pictures"]]:
    """What stands above zero, and the room between zero and one; 0 where a picture does not allow it."""
    there = scores.there
    return np.where(there, scores.values - scores.zero, 0), np.where(there, scores.one - scores.zero, 0)


@lru_cache(maxsize=4)
def _weights(pictures: int, seed: int, draws: int) -> Float[np.ndarray, "draws pictures"]:
    """How often each picture counts: once each, then drawn with replacement."""
    rng = np.random.default_rng([seed, 73])
    drawn = rng.multinomial(pictures, np.full(pictures, 1 / pictures), draws)
    return np.concatenate([np.ones((1, pictures)), drawn])


@lru_cache(maxsize=2)
def _signs(pictures: int, seed: int) -> Float[np.ndarray, "exchanges pictures"]:
    """On which pictures two methods are exchanged (-1)."""
    return np.random.default_rng([seed, 97]).choice([-1.0, 1.0], (_DRAWS, pictures))


def _ratios(
    weights: Float[np.ndarray, "draws pictures"],
    above: Float[np.ndarray, "*any models pictures"],
    room: Float[np.ndarray, "*any models pictures"],
) -> Float[np.ndarray, "*any draws"]:
    """Mean over models of sum / sum, over the models that allow it; NaN where none does."""
    up, size = (np.moveaxis(np.tensordot(weights, values, (1, -1)), 0, -1) for values in (above, room))
    allowed = size > 1e-9
    each = np.divide(up, size, out=np.zeros_like(up), where=allowed)
    count = allowed.sum(-2)
    return np.divide(each.sum(-2), count, out=np.full(count.shape, np.nan), where=count > 0)


def _contributions(
    apart: Float[np.ndarray, "pairs models pictures"], room: Float[np.ndarray, "pairs models pictures"]
) -> Float[np.ndarray, "pairs pictures"]:
    """What each picture adds to the difference of a pair: they add up to it."""
    size = room.sum(2, keepdims=True)
    each = np.divide(apart, size, out=np.zeros_like(apart), where=size > 1e-9)
    return each.sum(1) / np.maximum((size[..., 0] > 1e-9).sum(1), 1)[:, None]


def _interval(spread: Float[np.ndarray, "draws"], count: int) -> tuple[float, float]:
    """95 % percentile interval, made wider for few pictures as t is wider than the normal (expanded percentiles,
    Hesterberg 2015); NaN for fewer than five, whose smallest and largest mean hold the truth too rarely.
    """
    from scipy.stats import norm, t  # slow to import

    spread = spread[np.isfinite(spread)]
    if count < _FEWEST or not len(spread):
        return float("nan"), float("nan")
    tail = 100 * float(norm.cdf(t.ppf(0.025, count - 1) * (count / (count - 1)) ** 0.5))
    low, high = np.percentile(spread, [tail, 100 - tail]).tolist()
    return low, high


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
