"""The contract of every explanation method: pictures and classes in, one map per picture out."""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from einops import rearrange
from jaxtyping import Float, Int
from PIL import Image
from torch import Tensor
from torch.nn import functional as F  # noqa: N812


@runtime_checkable
class ExplanationMethod(Protocol):
    """`method(images, targets)` returns maps (B, g, g), signed where the method is; larger means more important for the class."""

    def __call__(self, images: Sequence[Image.Image], targets: Int[Tensor, "batch"]) -> Float[Tensor, "batch g g"]:
        """One map per picture."""
        ...


def upsample(maps: Float[Tensor, "batch g g"], size: tuple[int, int]) -> Float[Tensor, "batch height width"]:
    """Maps at the size of a picture (height, width), bilinear."""
    return rearrange(F.interpolate(maps[:, None].float(), size=size, mode="bilinear", align_corners=False), "b 1 y x -> b y x")
