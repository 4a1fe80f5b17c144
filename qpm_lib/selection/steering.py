"""Scores of features from their maps, to be used as a bias in `solve`."""

import numpy as np
from jaxtyping import Bool, Float, Int


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
