"""The contract of every explanation method: pictures and classes in, one map per picture out.

A new method is a file here and a name in `__init__.py`; chapter 6 measures those that its cells list.
"""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from jaxtyping import Float, Int
from PIL import Image
from torch import Tensor


@runtime_checkable
class ExplanationMethod(Protocol):
    """`method(images, targets)` returns maps (B, g, g), signed where the method is; larger means more important for the
    class.
    """

    def __call__(self, images: Sequence[Image.Image], targets: Int[Tensor, "batch"]) -> Float[Tensor, "batch g g"]:
        """One map per picture."""
        ...
