"""Deletion with the truth: the parts of a rendered bird are drawn away in the order in which a map ranks them.

No picture has holes, so every version is one that the model could have met. All 256 subsets of parts were asked for the
exact answers, so this costs nothing more.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int

from qpm_lib.metrics.exact_answers import SUBSETS, ExactParts
from qpm_lib.metrics.ground_truth import Maps, PictureTruth
from qpm_lib.metrics.parts import VARIED

_ALL = SUBSETS - 1


def removal_area(values: Float[np.ndarray, "subsets"], order: Int[np.ndarray, "parts"]) -> float:
    """Area under the score while parts go in an order; 1 is the score with all parts, 0 that without any, on an axis
    from 0 to 1.
    """
    left, curve = _ALL, [values[_ALL]]
    for part in order:
        left &= ~(1 << int(part))
        curve.append(values[left])
    span = values[_ALL] - values[0]
    return float((np.trapezoid(curve) / len(VARIED) - values[0]) / span)


def best_area(values: Float[np.ndarray, "subsets"]) -> float:
    """The smallest area that any of the 40,320 orders has, by dynamic programming over subsets."""
    least = np.full(SUBSETS, np.inf)
    least[0] = 0.0
    for subset in range(1, SUBSETS):
        ways = [subset & ~(1 << p) for p in range(len(VARIED)) if subset >> p & 1]
        least[subset] = min(least[way] + (values[subset] + values[way]) / 2 for way in ways)
    return float((least[_ALL] / len(VARIED) - values[0]) / (values[_ALL] - values[0]))


def mean_area(values: Float[np.ndarray, "subsets"]) -> float:
    """The mean area over all orders: every subset of a size is met alike."""
    sizes = np.array([subset.bit_count() for subset in range(SUBSETS)])
    curve = [values[sizes == size].mean() for size in range(len(VARIED), -1, -1)]
    return float((np.trapezoid(curve) / len(VARIED) - values[0]) / (values[_ALL] - values[0]))


def part_deletion(
    maps: Sequence[Maps], exact: ExactParts, truths: Sequence[PictureTruth], *, seed: int = 0
) -> dict[str, Float[np.ndarray, "rows"]]:
    """Deletion with the truth: `scores`, `random` and `ceiling` of each picture, larger is better (1 - area).

    `maps` are those of `maps_for`. Parts go in the order of what a map says of them per area (`read_out`), ties in
    random order. Random is the mean over all orders, the ceiling the best of them. NaN where the target's score does
    not fall when all parts go. An order by area alone does not score zero here, because larger parts mostly cost more.

    Raises
    ------
    ValueError : for truths that are not those of `exact`.
    """
    if not len(truths) == len(maps) == len(exact.rows):
        raise ValueError(
            f"{len(truths)} truths and {len(maps)} maps do not fit exact answers to {len(exact.rows)} pictures"
        )
    found = np.full((3, len(truths)), np.nan)
    rng = np.random.default_rng([seed, 83])
    for i, (truth, shown) in enumerate(zip(truths, maps, strict=True)):
        values = exact.logits[i, :, truth.target].astype(float)
        if values[_ALL] <= values[0]:
            continue
        said = np.tensordot(truth.weights[: len(VARIED)], shown[0], 2)
        shuffled = rng.permutation(len(VARIED))
        order = shuffled[np.argsort(-np.round(said, 9)[shuffled], kind="stable")]
        found[:, i] = 1 - np.array([removal_area(values, order), mean_area(values), best_area(values)])
    return dict(zip(("scores", "random", "ceiling"), found, strict=True))
