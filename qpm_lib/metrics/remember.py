"""A classifier that answers every picture once: checks of several explanations ask about the same ones again."""

import hashlib
from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

Classify = Callable[[Sequence[Image.Image]], Float[Tensor, "batch classes"]]


def remembered(classify: Classify) -> Classify:
    """The same classifier, which keeps its logits by the content of the picture; they are small."""
    known: dict[bytes, Tensor] = {}

    def answer(images: Sequence[Image.Image]) -> Tensor:
        keys = [hashlib.sha256(f"{image.mode} {image.size}".encode() + image.tobytes()).digest() for image in images]
        new = {key: image for key, image in zip(keys, images, strict=True) if key not in known}
        if new:
            known.update(zip(new, classify(list(new.values())), strict=True))
        return torch.stack([known[key] for key in keys])

    return answer
