"""How often a model is right."""

import torch
from jaxtyping import Float, Int
from torch import Tensor


def accuracy(logits: Float[Tensor, "images classes"], labels: Int[Tensor, "images"]) -> float:
    """Share of pictures whose largest logit is their label's; of equal logits the first counts."""
    if not len(labels):
        raise ValueError("accuracy needs at least one picture")
    return float((logits.argmax(1) == labels).float().mean())


def confusion(
    predicted: Int[Tensor, "images"], labels: Int[Tensor, "images"], n_classes: int
) -> Int[Tensor, "classes classes"]:
    """Counts: row true class, column predicted class."""
    if max(predicted.max(), labels.max()) >= n_classes:
        raise ValueError(f"a class (={int(max(predicted.max(), labels.max()))}) exceeds n_classes (={n_classes})")
    return torch.bincount(labels * n_classes + predicted, minlength=n_classes**2).view(n_classes, n_classes)
