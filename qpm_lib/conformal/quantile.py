"""The two numbers behind every promise: which score is exceeded by few enough pictures, and how far coverage may be off
by chance.
"""

import math

import numpy as np
from jaxtyping import Float
from torch import Tensor


def check_alpha(alpha: float) -> None:
    """Refuse what is no share of misses.

    Raises
    ------
    ValueError : for alpha outside (0, 1).
    """
    if not 0 < alpha < 1:
        raise ValueError(f"alpha (={alpha}) must lie between 0 and 1: with 0.1, sets hold the class 9 times in 10")


def rank(count: int, alpha: float) -> int:
    """ceil((m + 1) (1 - alpha)): which of m ordered scores bounds all but a share alpha of further ones; m + 1 when
    none of them does.
    """
    check_alpha(alpha)
    return min(count + 1, math.ceil(round((count + 1) * (1 - alpha), 9)))


def smallest_alpha(count: int) -> float:
    """The smallest alpha that so many calibration pictures support."""
    return 1 / (count + 1)


def conformal_quantile(scores: Float[Tensor, "m"], alpha: float) -> float:
    """The score that a further picture, exchangeable with these m, exceeds with a probability of at most alpha
    (Vovk, Gammerman and Shafer, Algorithmic Learning in a Random World, 2005); infinite when m is below 1 / alpha - 1.
    """
    place = rank(len(scores), alpha)
    return math.inf if place > len(scores) else float(scores.sort().values[place - 1])


def coverage_interval(count: int, tests: int, alpha: float, *, level: float = 0.95) -> tuple[float, float]:
    """Where the coverage of `tests` pictures falls in a share `level` of all draws, with m = `count` calibration
    pictures: the covered ones are beta-binomial with m + 1 - l and l = floor((m + 1) alpha) (Vovk, 2012).
    """
    from scipy.stats import betabinom

    place = rank(count, alpha)
    if place > count:
        return 1.0, 1.0
    low, high = betabinom.ppf([(1 - level) / 2, (1 + level) / 2], tests, place, count + 1 - place)
    return float(low / tests), float(high / tests)


def mean_coverage_interval(
    count: int, tests: int, alpha: float, draws: int, *, level: float = 0.99
) -> tuple[float, float]:
    """Where the mean coverage over so many independent draws falls, by its normal limit."""
    from scipy.stats import betabinom, norm

    place = rank(count, alpha)
    covered = betabinom(tests, place, count + 1 - place)
    middle, spread = covered.mean() / tests, covered.std() / tests / np.sqrt(draws)
    reach = norm.ppf((1 + level) / 2) * spread
    return float(middle - reach), float(middle + reach)
