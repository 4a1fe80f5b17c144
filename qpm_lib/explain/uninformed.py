"""Maps without any idea: what a measure says of them is the level that an explanation has to exceed."""

import hashlib
from collections.abc import Sequence

import numpy as np
import torch
from einops import reduce
from jaxtyping import Float, Int
from PIL import Image
from torch import Tensor

from qpm_lib.explain.base import Method
from qpm_lib.explain.target import Target


class RandomMap(Method):
    """Independent uniform numbers for every patch, picture and class; the same for the same picture, class and seed."""

    def __init__(self, target: Target, *, seed: int = 0, batch_size: int = 32) -> None:
        super().__init__(target, batch_size=batch_size)
        self.seed = seed

    def some(self, images: Sequence[Image.Image], targets: Int[Tensor, "batch"]) -> Float[Tensor, "batch g g"]:
        """Maps (B, g, g) from 0 to 1."""
        maps = np.empty((len(images), self.target.grid, self.target.grid), np.float32)
        for i, (image, target) in enumerate(zip(images, targets.tolist(), strict=True)):
            digest = hashlib.sha256(image.tobytes()).digest()[:8]
            rng = np.random.default_rng([self.seed, target, int.from_bytes(digest, "little")])
            maps[i] = rng.random(maps.shape[1:])
        return torch.from_numpy(maps)


def centred_blob(grid: int, width: float = 0.25) -> Float[np.ndarray, "grid grid"]:
    """A Gaussian in the centre, from 0 to 1; `width` is its standard deviation as a share of the side."""
    away = (np.arange(grid) + 0.5) / grid - 0.5
    return np.exp(-(away[:, None] ** 2 + away[None] ** 2) / (2 * width**2)).astype(np.float32)


class CentredBlob(Method):
    """A Gaussian in the centre of every picture, for every class: objects are mostly in the centre.

    Parameters
    ----------
    width : standard deviation, as a share of the side of the picture.
    """

    def __init__(self, target: Target, *, width: float = 0.25, batch_size: int = 32) -> None:
        super().__init__(target, batch_size=batch_size)
        self.map = centred_blob(target.grid, width)

    def some(self, images: Sequence[Image.Image], targets: Int[Tensor, "batch"]) -> Float[Tensor, "batch g g"]:
        """Maps (B, g, g) from 0 to 1."""
        return torch.from_numpy(np.stack([self.map] * len(images)))


class EdgeMap(Method):
    """Mean squared gradient of the grey picture in each patch (Sobel): where much is drawn."""

    def some(self, images: Sequence[Image.Image], targets: Int[Tensor, "batch"]) -> Float[Tensor, "batch g g"]:
        """Maps (B, g, g), non-negative."""
        from scipy.ndimage import sobel  # slow to import

        grid, square = self.target.grid, self.target.backbone.square
        greys = (np.asarray(square(image).convert("L"), np.float32) / 255 for image in images)
        energy = np.stack([sobel(grey, axis=0) ** 2 + sobel(grey, axis=1) ** 2 for grey in greys])
        return torch.from_numpy(reduce(energy, "b (y h) (x w) -> b y x", "mean", y=grid, x=grid))
