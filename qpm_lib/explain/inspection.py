"""What NAVE finds in a collection of pictures, small enough to be kept and looked at without the backbone."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from PIL import Image

from qpm_lib.core import progress, save_arrays, saved_arrays
from qpm_lib.explain.nave import SharedClusters
from qpm_lib.plotting import cluster_colours

_TYPICAL = 8


@dataclass(frozen=True)
class Inspection:
    """Segmentations of m pictures into K shared clusters, and what they become when they are merged.

    Attributes
    ----------
    names : of the pictures. labels : (m, g, g) in the K clusters. cuts : (K, K), in row k - 1 the number that each of
        the K clusters has among k. sizes : (K,) patches in each when they were made. border : (K,) share of them at the
        border of a picture. is_object : (K,) 1 where a cluster is taken for the object. typical : (K, t, 3) picture,
        row and column of the patches nearest to each centroid, one from each picture, -1 where there are fewer.
        artefacts : (m,) tokens of high norm in each picture.
    """

    names: tuple[str, ...]
    labels: UInt8[np.ndarray, "m g g"]
    cuts: UInt8[np.ndarray, "clusters clusters"]
    sizes: Int[np.ndarray, "clusters"]
    border: Float[np.ndarray, "clusters"]
    is_object: UInt8[np.ndarray, "clusters"]
    typical: Int[np.ndarray, "clusters t 3"]
    artefacts: Int[np.ndarray, "m"]

    def at(self, k: int) -> UInt8[np.ndarray, "m g g"]:
        """Labels in k clusters.

        Raises
        ------
        ValueError : for k outside 1 to K.
        """
        return self._of(k)[self.labels]

    def members(self, k: int) -> list[list[int]]:
        """Which of the K clusters each of k is made of, the largest first."""
        return [np.flatnonzero(self._of(k) == cluster).tolist() for cluster in range(k)]

    def colours(self, k: int) -> list[str]:
        """A colour for each of k clusters: that of the largest of the K in it, so that it lasts when k changes."""
        own = cluster_colours(len(self.sizes))
        return [own[inside[0]] for inside in self.members(k)]

    def examples(self, k: int) -> list[list[tuple[int, int, int]]]:
        """Typical patches (picture, row, column) of each of k clusters, one from each picture, taken in turn from those
        it is made of.
        """
        found = []
        for inside in self.members(k):
            turns = [self.typical[leaf, turn].tolist() for turn in range(self.typical.shape[1]) for leaf in inside]
            first: dict[int, tuple[int, int, int]] = {}
            for picture, row, column in turns:
                if picture >= 0:
                    first.setdefault(picture, (picture, row, column))
            found.append(list(first.values())[: self.typical.shape[1]])
        return found

    def _of(self, k: int) -> UInt8[np.ndarray, "clusters"]:
        if not 1 <= k <= len(self.cuts):
            raise ValueError(f"k (={k}) must be from 1 to {len(self.cuts)}, the number of clusters that were made")
        return self.cuts[k - 1]

    def save(self, folder: Path, *, made_by: str = "") -> None:
        """Write `clusters.safetensors` and, last, `clusters.json`."""
        arrays = {name: getattr(self, name) for name in _ARRAYS}
        save_arrays(folder, "clusters", arrays, {"made_by": made_by, "pictures": list(self.names)})

    @classmethod
    def load(cls, folder: Path) -> "Inspection":
        """Read a folder that `save` wrote.

        Raises
        ------
        ValueError : when there is none, or it is damaged.
        """
        with saved_arrays(folder, "clusters", what="clusters", chapter="09") as (arrays, card):
            names = tuple(card["pictures"])
            made = cls(names, **{name: arrays[name] for name in _ARRAYS})
            if len(made.labels) != len(names) or made.cuts.shape != (len(made.sizes),) * 2:
                raise ValueError("the clusters do not fit the pictures")
            if made.labels.max(initial=0) >= len(made.sizes):
                raise ValueError("labels name clusters that are not there")
        return made


_ARRAYS = ("labels", "cuts", "sizes", "border", "is_object", "typical", "artefacts")


def inspect_pictures(shared: SharedClusters, images: Sequence[Image.Image], names: Sequence[str]) -> Inspection:
    """Segment pictures with clusters that were fitted on them or on others; `images` may read each when it is asked
    for.

    Raises
    ------
    ValueError : for more than 256 clusters.
    """
    finest, size = len(shared.clusters.sizes), shared.nave.batch_size
    if finest > 256:
        raise ValueError(f"{finest} clusters do not fit into a byte: fit at most 256 to be kept")
    labels, artefacts = [], []
    nearest: list[list[tuple[float, int, int, int]]] = [[] for _ in range(finest)]
    for start in progress(range(0, len(images), size), "pictures"):
        described = shared.nave.describe([images[i] for i in range(start, min(start + size, len(images)))])
        far = shared.distances(described, finest)
        labels.append(far.argmin(-1).numpy().astype(np.uint8))
        artefacts.append(described.artefacts.sum(1).cpu().numpy())
        for cluster in range(finest):
            _remember(nearest[cluster], far[..., cluster], labels[-1] == cluster, start)
    typical = np.full((finest, _TYPICAL, 3), -1)
    for cluster, places in enumerate(nearest):
        for turn, (_, *place) in enumerate(places):
            typical[cluster, turn] = place
    cuts = np.stack([shared.clusters.cut(k) for k in range(1, finest + 1)]).astype(np.uint8)
    return Inspection(
        tuple(names),
        np.concatenate(labels),
        cuts,
        shared.clusters.sizes.astype(np.int64),
        shared.border,
        shared.is_object.astype(np.uint8),
        typical,
        np.concatenate(artefacts),
    )


def patch_panel(image: Image.Image, row: int, column: int, grid: int, *, side: int = 72) -> Image.Image:
    """A patch of a picture in the middle of its surroundings, three patches wide, at any grid."""
    step = max(image.size) / grid
    centre = (column + 0.5) * image.width / grid, (row + 0.5) * image.height / grid
    corner = [round(c - 1.5 * step) for c in centre]
    box = (*corner, *(round(c + 3 * step) for c in corner))
    return image.crop(box).resize((side, side), Image.Resampling.BICUBIC)


def _remember(
    kept: list[tuple[float, int, int, int]], far: torch.Tensor, own: Bool[np.ndarray, "b g g"], start: int
) -> None:
    """Keep the nearest patches so far, one from each picture."""
    far = np.where(own, far.numpy(), np.inf)
    for i, one in enumerate(far):
        row, column = np.unravel_index(one.argmin(), one.shape)
        if np.isfinite(one[row, column]):
            kept.append((float(one[row, column]), start + i, int(row), int(column)))
    kept.sort()
    del kept[_TYPICAL:]
