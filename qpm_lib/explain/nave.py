"""NAVE: what an encoder groups together on its way, without any class (Boubekki, Fadel and Mair, arXiv 2411.19700)."""

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from PIL import Image
from threadpoolctl import threadpool_limits
from torch import Tensor
from torch.nn import functional as F

from qpm_lib.backbones import FrozenBackbone, tapped
from qpm_lib.core import progress
from qpm_lib.data import all_rgb
from qpm_lib.explain.clusters import FINEST, Axes, Clusters, count_distinct
from qpm_lib.explain.descriptors import Described, descriptors

log = logging.getLogger(__name__)

_WIDEST = 32
_SAMPLE = 64


class NAVE:
    """Segmentation of pictures by k-means on the activations of a frozen encoder.

    Published: activations of several depths, on one grid, one after the other, clustered by k-means. Chosen here, where
    the paper leaves it open: the blocks at 1/4, 1/2, 3/4 and the whole of the depth; patch tokens of a transformer with
    length 1 at each tap, divided by the square root of the number of taps; stages of a convolutional network brought
    bilinearly to the largest stage (at most 32 x 32), each channel with mean 0 and deviation 1 over the picture; the
    first 64 principal components; ten k-means++ starts (two for more than 20 clusters).

    Parameters
    ----------
    taps : shares of the depth, over 0 to 1. k : clusters. seed : of k-means. batch_size : pictures at a time.

    Attributes
    ----------
    depths : blocks (or stages) whose output is read, counted from 1. grid : g, labels are (g, g).

    Raises
    ------
    ValueError : for taps outside 0 to 1, or k below 1.
    """

    def __init__(
        self,
        backbone: FrozenBackbone,
        *,
        taps: Sequence[float] = (1 / 4, 1 / 2, 3 / 4, 1),
        k: int = 5,
        seed: int = 0,
        batch_size: int = 32,
    ) -> None:
        if not len(taps) or not all(0 < tap <= 1 for tap in taps):
            raise ValueError(f"taps (={tuple(taps)}) must be shares of the depth, over 0 and up to 1")
        if k < 1 or batch_size < 1:
            raise ValueError(f"k (={k}) and batch_size (={batch_size}) must be at least 1")
        count = len(backbone.blocks)
        self.backbone, self.k, self.seed, self.batch_size = backbone, k, seed, batch_size
        self.depths = tuple(sorted({max(1, round(tap * count)) for tap in taps}))

    @property
    def grid(self) -> int:
        """Side of the labels: that of the patches, or of the largest stage that is read."""
        if self.backbone.is_transformer:
            return self.backbone.grid
        return min(self.backbone.grid * 2 ** (len(self.backbone.blocks) - self.depths[0]), _WIDEST)

    def describe(self, images: Sequence[Image.Image]) -> Described:
        """Descriptors of pictures of any size, on the device of the backbone.

        Raises
        ------
        ValueError : for no pictures, or activations that are not finite.
        """
        found = list(self._parts(images, "activations"))
        return Described(torch.cat([part.tokens for part in found]), torch.cat([part.artefacts for part in found]))

    def __call__(self, images: "Sequence[Image.Image] | Described") -> Int[Tensor, "batch g g"]:
        """Each picture on its own: labels 0 to k - 1, the largest cluster first. Pictures with fewer than k different
        tokens get fewer clusters.
        """
        labels: list[Tensor] = []
        for part in self._parts(images, "clusters"):
            with threadpool_limits(1):  # more threads only wait for each other on so few tokens
                labels += [self._alone(tokens) for tokens in part.tokens]
        few = sum(int(one.max()) + 1 < self.k for one in labels)
        if few:
            log.warning("%d of %d pictures have fewer than %d different tokens", few, len(labels), self.k)
        return self.laid_out(torch.stack(labels))

    def fit(
        self,
        images: "Sequence[Image.Image] | Described",
        *,
        finest: int | None = None,
        within: Bool[Tensor, "batch g g"] | None = None,
    ) -> "SharedClusters":
        """Clusters of many pictures together, so that the same number means the same thing in all of them.

        Parameters
        ----------
        finest : K, clusters that k-means makes, 20 or k if that is more; any smaller number comes from merging them.
        within : cluster only the patches that are marked, such as those of the object.

        Raises
        ------
        ValueError : for no pictures, nothing marked, or more clusters than different tokens.
        """
        finest, axes = finest or max(FINEST, self.k), Axes.fit(self._sample(images))
        rows, kept, ring = [], [], F.pad(torch.zeros((self.grid - 2,) * 2), (1,) * 4, value=1.0).flatten()
        for part in self._parts(images, "activations"):
            rows.append(axes(part.tokens))
            kept.append(~part.artefacts.cpu())
        use = torch.cat(kept)
        if within is not None:
            if within.shape != (len(use), self.grid, self.grid):
                raise ValueError(f"within {tuple(within.shape)} must be {(len(use), self.grid, self.grid)}")
            use = use & within.flatten(1).cpu()
        if not use.any():
            raise ValueError("no patch is marked: there is nothing to cluster")
        tokens = torch.cat(rows)[use.to(axes.mean.device)]
        clusters = Clusters.fit(tokens, finest, n_init=10 if finest <= FINEST else 2, seed=self.seed)
        at_border = ring.expand(use.shape)[use]
        member = F.one_hot(clusters.assign(tokens).cpu(), finest).float()
        border = (member.T @ at_border) / member.sum(0).clamp(min=1)
        return SharedClusters(self, axes, clusters, border.numpy())

    def laid_out(self, values: Tensor) -> Tensor:
        """Values of patches (B, P, ...) as pictures (B, g, g, ...)."""
        return values.unflatten(1, (self.grid, self.grid))

    def _alone(self, tokens: Float[Tensor, "patches dim"]) -> Int[Tensor, "patches"]:
        rows = Axes.fit(tokens)(tokens)
        return Clusters.fit(rows, count_distinct(rows, self.k), seed=self.seed).assign(rows).cpu()

    def _sample(self, images: "Sequence[Image.Image] | Described") -> Float[Tensor, "rows dim"]:
        """Descriptors of some pictures, so that the rest need not be held in memory."""
        count = len(images.tokens if isinstance(images, Described) else images)
        some = np.random.default_rng(self.seed).choice(count, min(count, _SAMPLE), replace=False)
        if isinstance(images, Described):
            return images.tokens[torch.from_numpy(some)][~images.artefacts[torch.from_numpy(some)]]
        parts = self._parts([images[i] for i in some], "axes")
        return torch.cat([part.tokens[~part.artefacts] for part in parts])

    def _parts(self, images: "Sequence[Image.Image] | Described", title: str) -> Iterator[Described]:
        """Descriptors, some pictures at a time."""
        if isinstance(images, Described):
            yield images
            return
        if isinstance(images, Image.Image) or not len(images):
            all_rgb(images)  # refuses it
        starts = range(0, len(images), self.batch_size)
        for start in progress(starts, title) if len(starts) > 1 else starts:
            yield self._some([images[i] for i in range(start, min(start + self.batch_size, len(images)))])

    @torch.no_grad()
    def _some(self, images: Sequence[Image.Image]) -> Described:
        backbone = self.backbone
        names = [f"blocks.{depth - 1}.output" for depth in self.depths]
        pixels = backbone.preprocess(all_rgb(images))
        with tapped(backbone, *names) as found:
            backbone(pixels)
        return descriptors(backbone, [found[name].float() for name in names], self.grid)


@dataclass(frozen=True)
class SharedClusters:
    """Clusters of many pictures, fitted by `NAVE.fit`: K of them, which can be merged to any smaller number.

    Attributes
    ----------
    border : (K,) share of the patches of each that lie at the border of their picture.
    """

    nave: NAVE
    axes: Axes
    clusters: Clusters
    border: Float[np.ndarray, "clusters"]

    def transform(self, images: "Sequence[Image.Image] | Described", k: int | None = None) -> Int[Tensor, "batch g g"]:
        """Labels of other pictures, or the same: 0 to k - 1 (`nave.k` without k), the cluster that was the largest of
        the fitted pictures first.

        Raises
        ------
        ValueError : for no pictures, or k above K.
        """
        k = self.nave.k if k is None else k
        return self._each(images, lambda rows: self.clusters.assign(rows, k))

    def distances(
        self, images: "Sequence[Image.Image] | Described", k: int | None = None
    ) -> Float[Tensor, "batch g g k"]:
        """Distance of each patch to each of k clusters, for `sharpen`."""
        k = self.nave.k if k is None else k
        return self._each(images, lambda rows: self.clusters.distances(rows, k))

    @property
    def is_object(self) -> Bool[np.ndarray, "clusters"]:
        """Which of the K clusters are the object: of the last two that would be merged, the one that touches the border
        of pictures less. No label is used; it fails where the object fills the picture.
        """
        side = self.clusters.cut(min(2, len(self.clusters.sizes)))
        shares = np.bincount(side, self.clusters.sizes * self.border) / np.bincount(side, self.clusters.sizes)
        return side == shares.argmin()

    def objects(self, images: "Sequence[Image.Image] | Described") -> Bool[Tensor, "batch g g"]:
        """Patches of the object in each picture."""
        return torch.from_numpy(self.is_object)[self.transform(images, len(self.clusters.sizes))]

    def sides(self, images: "Sequence[Image.Image] | Described") -> Float[Tensor, "batch g g 2"]:
        """Distance of each patch to the ground (0) and to the object (1), for `sharpen`."""
        far, inside = self.distances(images, len(self.clusters.sizes)), torch.from_numpy(self.is_object)
        return torch.stack([far[..., ~inside].amin(-1), far[..., inside].amin(-1)], -1)

    def _each(self, images: "Sequence[Image.Image] | Described", read: Callable[[Tensor], Tensor]) -> Tensor:
        parts = [read(self.axes(part.tokens)).cpu() for part in self.nave._parts(images, "clusters")]
        return self.nave.laid_out(torch.cat(parts))
