"""The contract of every explanation method: pictures and classes in, one map per picture out."""

import logging
from collections.abc import Sequence
from typing import ClassVar, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from PIL import Image
from torch import Tensor

from qpm_lib.explain.target import Target

log = logging.getLogger(__name__)


@runtime_checkable
class ExplanationMethod(Protocol):
    """`method(images, targets)` returns maps (B, g, g), signed where the method is; larger means more important for the
    class.
    """

    def __call__(self, images: Sequence[Image.Image], targets: Int[Tensor, "batch"]) -> Float[Tensor, "batch g g"]:
        """One map per picture."""
        ...


class Method:
    """An explanation of a `Target`, batch by batch.

    A new method is a class with `maps` in a file here, and an entry in `registry.py`; everything else (`qpm explain`,
    chapter 8, the tables, one test over all of them) follows.

    Parameters
    ----------
    target : what is explained. batch_size : pictures at a time; where memory does not suffice it is halved once.

    Raises
    ------
    ValueError : for a method that the target does not allow.
    """

    needs_transformer: ClassVar[bool] = False

    def __init__(self, target: Target, *, batch_size: int = 32) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size (={batch_size}) must be at least 1")
        if self.needs_transformer and not target.backbone.is_transformer:
            raise ValueError(
                f"{type(self).__name__} needs a vision transformer, which backbone {target.backbone.name} is not: "
                "choose grad_cam, rise, integrated_gradients or class_activation_map"
            )
        self.target, self.batch_size = target, batch_size

    def __call__(self, images: Sequence[Image.Image], targets: Int[Tensor, "batch"]) -> Float[Tensor, "batch g g"]:
        """Maps (B, g, g), on the CPU."""
        targets = self.target.classes(targets, len(images))
        found: list[Tensor] = []
        while len(found) < len(images):
            part = slice(len(found), len(found) + self.batch_size)
            try:
                maps = self.some(images[part], targets[part])
            except RuntimeError as error:
                self._halve(error)
                continue
            found.extend(maps.detach().float().cpu())
        if not found:
            self.target.pixels(images)  # refuses what is empty
        return torch.stack(found)

    def some(self, images: Sequence[Image.Image], targets: Int[Tensor, "batch"]) -> Float[Tensor, "batch g g"]:
        """Maps of one batch."""
        return self.maps(self.target.pixels(images), targets)

    def maps(
        self, pixels: Float[Tensor, "batch 3 size size"], targets: Int[Tensor, "batch"]
    ) -> Float[Tensor, "batch g g"]:
        """Maps of one batch of pictures as the backbone reads them."""
        raise NotImplementedError

    def _halve(self, error: RuntimeError) -> None:
        said = str(error).lower()
        out = isinstance(error, torch.OutOfMemoryError) or "not enough memory" in said or "allocate memory" in said
        if not out or self.batch_size == 1 or getattr(self, "_halved", False):
            raise error
        self._halved, self.batch_size = True, self.batch_size // 2
        log.warning("memory does not suffice: pictures are explained %d at a time", self.batch_size)
