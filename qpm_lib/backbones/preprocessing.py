"""From pictures to what a backbone reads: the square it sees, and normalised numbers."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor


@dataclass(frozen=True)
class Preprocessing:
    """From pictures to normalised tensors; small, because worker processes get a copy, and without a GPU."""

    image_size: int
    aspect: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def square(self, image: Image.Image, side: int | None = None) -> Image.Image:
        """The square that the backbone sees of a picture."""
        if self.aspect == "crop":
            short = min(image.size)
            left, top = (image.width - short) // 2, (image.height - short) // 2
            image = image.crop((left, top, left + short, top + short))
        size = side or self.image_size
        return image if image.size == (size, size) else image.resize((size, size), Image.Resampling.BICUBIC)

    def __call__(self, images: Sequence[Image.Image]) -> Float[Tensor, "batch 3 size size"]:
        """Squares, scaled to 0..1 and normalised."""
        pixels = np.stack([np.asarray(self.square(image)) for image in images])
        scaled = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255
        mean, std = (torch.tensor(part)[:, None, None] for part in (self.mean, self.std))
        return (scaled - mean) / std
