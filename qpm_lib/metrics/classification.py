"""How often a model is right."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from qpm_lib.metrics.inputs import Array, check_classes, tensors


def accuracy(logits: Float[Array, "images classes"], labels: Int[Array, "images"]) -> float:
    """Share of pictures whose largest logit is their label's; of equal logits the first counts."""
    logits, labels = tensors(logits=(logits, "images classes"), labels=(labels, "images"))
    if not len(labels):
        raise ValueError("accuracy needs at least one picture")
    return float((logits.argmax(1) == labels).float().mean())


def confusion(
    predicted: Int[Array, "images"], labels: Int[Array, "images"], n_classes: int
) -> Int[Tensor, "classes classes"]:
    """Counts: row true class, column predicted class."""
    predicted, labels = tensors(predicted=(predicted, "images"), labels=(labels, "images"))
    check_classes("predicted", predicted, n_classes)
    check_classes("labels", labels, n_classes)
    return torch.bincount(labels * n_classes + predicted, minlength=n_classes**2).view(n_classes, n_classes)
