"""Wishes: scores of features from their maps, to be used as a bias in `solve`."""

import numpy as np
from jaxtyping import Bool, Float, Int

from qpm_lib.core import SelectionConfig
from qpm_lib.selection.constants import redundancy, similar_pairs
from qpm_lib.selection.result import Selection
from qpm_lib.selection.solver import solve


def wish(score: Float[np.ndarray, "features"], objective: float, percent: float) -> Float[np.ndarray, "features"]:
    """Bias for `solve` with which the feature of the highest score counts `percent` % of an objective more than that of
    the lowest. Equal scores are no wish.
    """
    spread = float(np.ptp(score))
    return np.zeros(len(score)) if spread == 0 else percent * abs(objective) / (100 * spread) * score


def paired_classes(
    relevance: Float[np.ndarray, "features classes"], settings: SelectionConfig
) -> dict[str, list[tuple[int, int]] | int]:
    """Options of `solve` for `settings.pairs` (CHiQPM, arXiv 2511.20779): that share of the number of classes is how
    many pairs must have k - 1 features in common; nothing where it is 0.

    The published programme names the most similar pairs one by one. Here they are candidates, twice as many as must be
    alike [ours], so that the programme chooses those for which it is cheapest.
    """
    c = relevance.shape[1]
    wanted, most = round(settings.pairs * c), c * (c - 1) // 2
    if not wanted:
        return {}
    if wanted > most:
        raise ValueError(
            f"selection.pairs (={settings.pairs}) asks for {wanted} pairs of {c} classes: there are {most}"
        )
    return {"pair_constraints": similar_pairs(relevance, min(2 * wanted, most) / c), "n_pairs": wanted}


def solve_as_set(
    relevance: Float[np.ndarray, "features classes"],
    settings: SelectionConfig,
    *,
    keeps: Float[np.ndarray, "features"] | None = None,
    seed: int = 0,
    start: Int[np.ndarray, "n"] | None = None,
) -> Selection:
    """The programme with the settings of a run: with `settings.pairs`, and then with `settings.locality`, too.

    Parameters
    ----------
    keeps : how much each feature keeps to one place (`locality`). Without it, or where nothing is to be paid for it,
        the programme is solved once. start : features of a selection that may be good already.
    """
    redundant = redundancy(relevance, settings.n_features, settings.redundancy)
    options = {"n_features": settings.n_features, "n_per_class": settings.n_per_class}
    options |= {"gap": settings.gap, "time_limit": settings.time_limit, "seed": seed, "start": start}
    pairs = paired_classes(relevance, settings)
    if keeps is None or not settings.locality:
        return solve(relevance, redundant, **options, **pairs)
    # The unit of the price is an objective without pairs, so that features cost the same with them.
    plain = solve(relevance, redundant, **options)
    return solve(relevance, redundant, **options, **pairs, bias=wish(keeps, plain.objective, settings.locality))


def locality(maps: Float[np.ndarray, "images features g g"]) -> Float[np.ndarray, "features"]:
    """How much each feature keeps to one place: share of a map's sum that lies within one patch of its peak,
    over images.

    Negative map values count as zero; maps without a positive value are left out. In 0 to 1, NaN-free:
    a feature that never fires gets 0.
    """
    g = maps.shape[-1]
    positive = np.maximum(maps, 0)
    peak = positive.reshape(*maps.shape[:2], -1).argmax(-1)
    return _share_near(positive, np.stack([peak % g, peak // g], -1), positive.sum((2, 3)) > 0)


def part_share(
    maps: Float[np.ndarray, "images features g g"],
    cells: Int[np.ndarray, "images 2"],
    visible: Bool[np.ndarray, "images"],
) -> Float[np.ndarray, "features"]:
    """How much each feature lies on a part: share of a map's sum that lies within one patch of the part,
    over images that show it.

    Parameters
    ----------
    cells : column and row of the patch that holds the part (see `qpm_lib.data.part_cells`). visible :
        images that show the part.

    Raises
    ------
    ValueError : when no image shows the part.
    """
    if not visible.any():
        raise ValueError(f"none of {len(visible)} images shows the part: choose another part or more images")
    positive = np.maximum(maps, 0)
    where = np.broadcast_to(cells[:, None], (*maps.shape[:2], 2))
    return _share_near(positive, where, (positive.sum((2, 3)) > 0) & visible[:, None])


def _share_near(
    positive: Float[np.ndarray, "images features g g"],
    where: Int[np.ndarray, "images features 2"],
    counted: Bool[np.ndarray, "images features"],
) -> Float[np.ndarray, "features"]:
    index = np.arange(positive.shape[-1])
    across, down = (np.abs(index - where[..., axis, None]) <= 1 for axis in (0, 1))
    near = (positive * (down[..., :, None] & across[..., None, :])).sum((2, 3))
    share = np.divide(near, positive.sum((2, 3)), out=np.zeros_like(near), where=counted)
    return (share * counted).sum(0) / np.maximum(counted.sum(0), 1)
