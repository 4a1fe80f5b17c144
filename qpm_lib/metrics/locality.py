"""Is what a feature shows also what switches it on? A token of a vision transformer has seen the whole picture, so that
a map which adds up to the score need not show where the score was read from.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from PIL import Image, ImageFilter
from torch import Tensor

from qpm_lib.core import progress

_HELD = 0.8  # of the map by the patches it marks
Features = Callable[[Sequence[Image.Image]], tuple[Float[Tensor, "batch n g g"], Float[Tensor, "batch n"]]]


class Locality(NamedTuple):
    """What is left of features when only the place they show is kept, and when only that is taken away.

    Attributes
    ----------
    kept : (n,) share of a feature's value that is left when all but its marked patches is replaced; sums over
        pictures, NaN for a feature that was not asked for. lost : (n,) share that goes when these are replaced.
    kept_random, lost_random : (n,) the same for regions of the same shape elsewhere in the picture: zero of the skill.
    area : (n,) mean share of the picture that is marked. pictures : (n,) how many were looked at.
    """

    kept: Float[np.ndarray, "n"]
    lost: Float[np.ndarray, "n"]
    kept_random: Float[np.ndarray, "n"]
    lost_random: Float[np.ndarray, "n"]
    area: Float[np.ndarray, "n"]
    pictures: Int[np.ndarray, "n"]

    @property
    def means(self) -> dict[str, float]:
        """What a model's card states: means over the features that were asked for, and pictures per feature."""
        asked = self.pictures > 0
        shares = {name: getattr(self, name)[asked].mean() for name in ("kept", "kept_random", "area")}
        return {name: float(x) for name, x in {**shares, "pictures": self.pictures[asked].mean()}.items()}

    @property
    def skill(self) -> float:
        """Locality in the picture: (kept - kept_random) / (1 - kept_random), each the mean over features (a mean of the
        quotients would be decided by a feature that hardly loses anything elsewhere); NaN without any.
        """
        asked = self.pictures > 0
        if not asked.any():
            return float("nan")
        kept, random = float(self.kept[asked].mean()), float(self.kept_random[asked].mean())
        return (kept - random) / (1 - random) if 1 - random > 1e-9 else float("nan")


def marked_patches(maps: Float[np.ndarray, "maps g g"], held: float = _HELD) -> Bool[np.ndarray, "maps g g"]:
    """The fewest patches that hold a share of each map; none of a map without positive values."""
    flat = maps.clip(0).reshape(len(maps), maps.shape[1] * maps.shape[2])
    order = np.argsort(-flat, axis=1, kind="stable")
    ranked = np.take_along_axis(flat, order, 1)
    before = ranked.cumsum(1) - ranked
    chosen = (before < held * ranked.sum(1, keepdims=True)) & (ranked > 0)
    marked = np.zeros_like(chosen)
    np.put_along_axis(marked, order, chosen, 1)
    return marked.reshape(maps.shape)


def blurred(image: Image.Image) -> Image.Image:
    """What a photograph is filled with where something is taken away: itself, blurred over an eighth of its side."""
    return image.filter(ImageFilter.GaussianBlur(max(image.size) / 8))


def feature_locality(
    features: Features,
    images: Sequence[Image.Image],
    asked: Sequence[Sequence[int]],
    fills: Sequence[Image.Image] | None = None,
    *,
    n_random: int = 2,
    seed: int = 0,
) -> Locality:
    """Replace all but what a feature marks, and see what is left of the feature; and the reverse.

    Parameters
    ----------
    features : square pictures -> (maps (B, n, g, g), vector (B, n)). asked : features to look at, for each picture;
        those of its class, for instance. fills : what replaces a place, for each picture: rendered birds have the
        scene without the bird; where there are none, pictures are blurred.

    Raises
    ------
    ValueError : for lists of different lengths, none at all, or pictures of another size than their fills.
    """
    fills = [blurred(image) for image in images] if fills is None else fills
    if not len(images) or not len(images) == len(asked) == len(fills):
        raise ValueError(
            f"{len(images)} pictures, {len(asked)} lists of features and {len(fills)} fills: one of each is needed"
        )
    rng, rows, n = np.random.default_rng([seed, 73]), [], 0
    for image, chosen, fill in zip(progress(images, "places of features"), asked, fills, strict=True):
        if image.size != fill.size:
            raise ValueError(f"a picture of {image.size} pixels has a fill of {fill.size}: sizes must be equal")
        maps, vector = features([image, fill])
        n, there = vector.shape[1], (vector[0] - vector[1]).double().cpu().numpy()
        chosen = np.array([f for f in chosen if there[f] > 0], int)  # a feature that is off has no place
        marked = marked_patches(maps[0].double().cpu().numpy()[chosen])
        moved = [[m, *(np.roll(m, rng.integers(1, len(m), 2), (0, 1)) for _ in range(n_random))] for m in marked]
        pictures = [_only(image, fill, where) for one in moved for region in one for where in (region, ~region)]
        if pictures:
            left = (features(pictures)[1] - vector[1]).double().cpu().numpy().reshape(len(chosen), -1, 2, n)
            own = left[np.arange(len(chosen)), ..., chosen]  # (features, own and moved regions, kept or taken away)
            means = [own[:, 0], own[:, 1:].mean(1)]
            rows.append(np.column_stack([chosen, there[chosen], *means, marked.mean((1, 2))]))
    return _sums(np.concatenate(rows) if rows else np.empty((0, 7)), n)


def _only(image: Image.Image, fill: Image.Image, region: Bool[np.ndarray, "g g"]) -> Image.Image:
    """The picture where the region is, the fill elsewhere."""
    mask = Image.fromarray(region.astype(np.uint8) * 255).resize(image.size, Image.Resampling.NEAREST)
    return Image.composite(image, fill, mask)


def _sums(rows: Float[np.ndarray, "asked seven"], n: int) -> Locality:
    """Columns: feature, its value, what is kept and what is left without, both for moved regions, marked area."""
    f = rows[:, 0].astype(int)
    count = np.bincount(f, minlength=n)
    there, kept, without, kept_random, without_random, area = (np.bincount(f, c, n) for c in rows.T[1:])

    def share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
        return np.divide(part, whole, out=np.full(n, np.nan), where=count > 0)

    return Locality(
        share(kept, there),
        1 - share(without, there),
        share(kept_random, there),
        1 - share(without_random, there),
        share(area, count),
        count,
    )
