"""Loss terms of the dense model and of fine-tuning (DINO-QPM, arXiv 2604.07166, and QPM, arXiv 2502.20130)."""

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from qpm_lib.core import TrainingConfig
from qpm_lib.model.adapter import Output


def diversity_loss(
    maps: Float[Tensor, "batch features g g"],
    vector: Float[Tensor, "batch features"],
    logits: Float[Tensor, "batch classes"],
    weight: Float[Tensor, "classes features"],
) -> Float[Tensor, ""]:
    r"""Feature diversity loss: minus the share of the picture that important features cover at different places.

    With the predicted class :math:`\hat c`, :math:`w = |W_{\hat c}| / \|W_{\hat c}\|_2`, :math:`a = f / \max f` and the
    softmax over patches :math:`S`, it is :math:`-\frac{1}{B} \sum_b \sum_p \max_f w_f a_f S_{fp}`. Range:
    about -sqrt(k) to 0 for k features of equal weight.
    """
    chosen = weight[logits.argmax(1)].abs()
    chosen = chosen / chosen.norm(dim=1, keepdim=True).clamp_min(1e-12)
    activity = vector / vector.amax(1, keepdim=True).clamp_min(1e-12)
    # Maps come from (batch, patches, features) in memory; in that order nothing is copied.
    places = rearrange(maps, "b f y x -> b (y x) f").softmax(1)
    return -((chosen * activity)[:, None] * places).max(2).values.sum(1).mean()


def loss_terms(
    out: Output, labels: Int[Tensor, "batch"], weight: Float[Tensor, "classes features"], config: TrainingConfig
) -> dict[str, Tensor]:
    """All terms of the loss by name, weighted, in fp32; their sum is what is minimised. Terms with weight zero are not
    computed.

    `l1_maps` is the mean of |M| and `l1_vector` the mean of |f| over all entries: together the sparsity loss of the
    paper.
    """
    maps, vector, logits = out.maps.float(), out.vector.float(), out.logits.float()
    terms = {"cross_entropy": F.cross_entropy(logits, labels)}
    if config.diversity:
        terms["diversity"] = config.diversity * diversity_loss(maps, vector, logits, weight)
    if config.l1_maps:
        terms["l1_maps"] = config.l1_maps * maps.abs().mean()
    if config.l1_vector:
        terms["l1_vector"] = config.l1_vector * vector.abs().mean()
    return terms


def total(terms: dict[str, Tensor]) -> Float[Tensor, ""]:
    """Sum of the terms."""
    return torch.stack(list(terms.values())).sum()
