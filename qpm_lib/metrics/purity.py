"""What each feature answers to: rendered birds have every part variant independently of the others."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from PIL import Image
from torch import Tensor

from qpm_lib.core import progress
from qpm_lib.data import ATTRIBUTES, FACTOR_PART, PARTS, present, random_bird, render
from qpm_lib.metrics.naming import squared_correlation
from qpm_lib.metrics.parts import coverage, part_importance

_SHUFFLES = 20


@dataclass(frozen=True)
class Purity:
    """What each feature answers to, measured on birds with independent random variants.

    Attributes
    ----------
    explained : (n, A) share of a feature's variance that one attribute (part and variant) explains. attributes :
        their names.
    best : (n,) the attribute that explains most. purity : (n,) that share; a feature that is the attribute has 1.
    purity_random : (n,) the same when the birds are dealt out to the pictures anew. on_part : (n,) share of the
    feature's map on the part of that attribute, on birds that have it. part_area : (n,) share of the picture that the
    part covers, which is what a random map gets. on_part_ceiling : (n,) what the part itself gets, painted on the
    patch grid.
    """

    explained: Float[np.ndarray, "n attributes"]
    attributes: tuple[str, ...]
    best: Int[np.ndarray, "n"]
    purity: Float[np.ndarray, "n"]
    purity_random: Float[np.ndarray, "n"]
    on_part: Float[np.ndarray, "n"]
    part_area: Float[np.ndarray, "n"]
    on_part_ceiling: Float[np.ndarray, "n"]

    @property
    def purity_skill(self) -> float:
        """Mean purity, where random is 0 and a feature that is an attribute is 1."""
        random = self.purity_random.mean()
        return float((self.purity.mean() - random) / (1 - random))

    @property
    def on_part_skill(self) -> float:
        """Mean share of the maps on their parts, where a random map is 0 and the painted part is 1."""
        room = (self.on_part_ceiling - self.part_area).mean()
        return float((self.on_part - self.part_area).mean() / room) if room > 0 else 0.0


def feature_purity(
    features: Callable[[Sequence[Image.Image]], tuple[Float[Tensor, "batch n g g"], Float[Tensor, "batch n"]]],
    *,
    n_birds: int = 600,
    seed: int = 0,
    batch_size: int = 50,
) -> Purity:
    """Draw random birds and ask which single part variant each feature answers to, and whether its map lies there.

    In the species of a data set variants come together, so that a feature of the beak may look like one of the tail.
    Random birds have every variant independently; their species are not those of the data set.

    Parameters
    ----------
    features : pictures -> (maps (B, n, g, g), vector (B, n)).

    Raises
    ------
    ValueError : for fewer than 10 birds.
    """
    if n_birds < 10:
        raise ValueError(f"n_birds (={n_birds}) must be at least 10: shares of variance need a sample")
    rng = np.random.default_rng([seed, 53])
    birds = [random_bird(rng) for _ in range(n_birds)]
    scenes = rng.integers(2**31, 2**32, n_birds)  # far from the seeds of data sets
    vectors, shares, areas, ceilings = [], [], [], []
    for start in progress(range(0, n_birds, batch_size), "random birds"):
        drawn = [render(birds[i], int(scenes[i])) for i in range(start, min(start + batch_size, n_birds))]
        maps, vector = features([Image.fromarray(d.image) for d in drawn])
        parts = np.stack([d.parts for d in drawn])
        shares.append(part_importance(maps, parts))
        areas.append(part_importance(torch.ones_like(maps[:, :1]), parts)[:, 0])
        ceilings.append(_painted_shares(parts, maps.shape[-1]))
        vectors.append(vector.float().cpu().numpy())
    x, on, area, best_on = (np.concatenate(parts) for parts in (vectors, shares, areas, ceilings))
    has = np.array([present(bird) for bird in birds])
    explained = squared_correlation(x, has.astype(float))
    best = explained.argmax(1)
    part = np.array([PARTS.index(FACTOR_PART[a.split("::")[0]]) - 1 for a in ATTRIBUTES])[best]
    shuffled = [squared_correlation(x, has[rng.permutation(n_birds)].astype(float)).max(1) for _ in range(_SHUFFLES)]
    on_part, part_area, ceiling = (np.zeros(len(best)) for _ in range(3))
    for f, (a, p) in enumerate(zip(best, part, strict=True)):
        rows = has[:, a] & (area[:, p] > 0)
        if rows.any():
            on_part[f], part_area[f], ceiling[f] = on[rows, f, p].mean(), area[rows, p].mean(), best_on[rows, p].mean()
    found = {"best": best, "purity": explained.max(1), "purity_random": np.mean(shuffled, 0)}
    return Purity(explained, ATTRIBUTES, on_part=on_part, part_area=part_area, on_part_ceiling=ceiling, **found)


def _painted_shares(parts: UInt8[np.ndarray, "batch h w"], grid: int) -> Float[np.ndarray, "batch parts"]:
    """Share on each part of its own mask, painted on the patch grid."""
    painted = np.stack([coverage(np.stack([p == k for k in range(1, len(PARTS))]), grid) for p in parts])
    shares = part_importance(torch.from_numpy(painted), parts)
    return np.diagonal(shares, axis1=1, axis2=2).copy()
