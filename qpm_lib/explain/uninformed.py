"""Maps without any idea: what a measure says of them is the level that an explanation has to exceed."""

import hashlib
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Int
from PIL import Image
from torch import Tensor


class RandomMap:
    """Independent uniform numbers for every patch, picture and class; the same for the same picture, class and seed.

    Follows the contract of `base.ExplanationMethod`.
    """

    def __init__(self, grid: int, *, seed: int = 0) -> None:
        self.grid, self.seed = grid, seed

    def __call__(self, images: Sequence[Image.Image], targets: Int[Tensor, "batch"]) -> Float[Tensor, "batch g g"]:
        """Maps (B, g, g) from 0 to 1."""
        maps = np.empty((len(images), self.grid, self.grid), np.float32)
        for i, (image, target) in enumerate(zip(images, targets.tolist(), strict=True)):
            digest = hashlib.sha256(image.tobytes()).digest()[:8]
            rng = np.random.default_rng([self.seed, target, int.from_bytes(digest, "little")])
            maps[i] = rng.random((self.grid, self.grid))
        return torch.from_numpy(maps).to(targets.device)


class CentredBlob:
    """A Gaussian in the centre of every picture, for every class: objects are mostly in the centre.

    Follows the contract of `base.ExplanationMethod`.

    Parameters
    ----------
    width : standard deviation, as a share of the side of the picture.
    """

    def __init__(self, grid: int, *, width: float = 0.25) -> None:
        away = (np.arange(grid) + 0.5) / grid - 0.5
        self.map = np.exp(-(away[:, None] ** 2 + away[None] ** 2) / (2 * width**2)).astype(np.float32)

    def __call__(self, images: Sequence[Image.Image], targets: Int[Tensor, "batch"]) -> Float[Tensor, "batch g g"]:
        """Maps (B, g, g) from 0 to 1."""
        return torch.from_numpy(np.stack([self.map] * len(images))).to(targets.device)
