"""Loss terms of the dense model and of fine-tuning (DINO-QPM, arXiv 2604.07166, and QPM, arXiv 2502.20130)."""

from typing import Any

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable
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
    return -_ReadOnce.apply(_in_memory(maps), _importance(vector, logits, weight))[0].mean()


def grounding_loss(
    vector: Float[Tensor, "batch features"],
    labels: Int[Tensor, "batch"],
    weight: Float[Tensor, "classes features"],
) -> Float[Tensor, ""]:
    r"""Feature grounding loss (CHiQPM, arXiv 2511.20779): features of the true class shall be on, all others off.

    With :math:`S_c` the features of the true class, :math:`m_{in} = \mathrm{mean}_{S_c} f` and :math:`m_{out} = 2\,
    \mathrm{mean}_{\text{not } S_c} f` (the factor stands in the released code), it is :math:`\mathrm{mean}_b (m_{out} -
    m_{in}) / \max(\max_i f_i, 0.01)`. Range: -1 (only the features of the class, equally strong) to 2.
    """
    own = (weight[labels] != 0).to(vector.dtype)
    others = 1 - own
    inside = (vector * own).sum(1) / own.sum(1).clamp_min(1)
    outside = 2 * (vector * others).sum(1) / others.sum(1).clamp_min(1)
    return ((outside - inside) / vector.abs().amax(1).clamp_min(0.01)).mean()


def loss_terms(
    out: Output, labels: Int[Tensor, "batch"], weight: Float[Tensor, "classes features"], config: TrainingConfig
) -> dict[str, Tensor]:
    """All terms of the loss by name, weighted, in fp32; their sum is what is minimised. Terms with weight zero are not
    computed.

    `l1_maps` is the mean of |M| and `l1_vector` the mean of |f| over all entries: together the sparsity loss of the
    paper. Features are not negative (the adapter ends in a ReLU), so that |M| = M.
    """
    maps, vector, logits = out.maps.float(), out.vector.float(), out.logits.float()
    terms = {"cross_entropy": F.cross_entropy(logits, labels)}
    if config.diversity or config.l1_maps:
        covered, mass = _ReadOnce.apply(_in_memory(maps), _importance(vector, logits, weight))
        if config.diversity:
            terms["diversity"] = -config.diversity * covered.mean()
        if config.l1_maps:
            terms["l1_maps"] = config.l1_maps * mass.sum() / maps.numel()
    if config.grounding:
        terms["grounding"] = config.grounding * grounding_loss(vector, labels, weight)
    if config.l1_vector:
        terms["l1_vector"] = config.l1_vector * vector.abs().mean()
    return terms


def _in_memory(maps: Float[Tensor, "batch features g g"]) -> Float[Tensor, "batch patches features"]:
    """Maps in the order in which the adapter wrote them, so that nothing is copied."""
    return rearrange(maps, "b f y x -> b (y x) f")


def _importance(
    vector: Float[Tensor, "batch features"],
    logits: Float[Tensor, "batch classes"],
    weight: Float[Tensor, "classes features"],
) -> Float[Tensor, "batch features"]:
    """How much each feature says about the predicted class, w * a."""
    chosen = weight[logits.argmax(1)].abs()
    chosen = chosen / chosen.norm(dim=1, keepdim=True).clamp_min(1e-12)
    return chosen * (vector / vector.amax(1, keepdim=True).clamp_min(1e-12))


class _ReadOnce(torch.autograd.Function):
    """What two losses need of the maps, with as few passes over them as there can be: memory is their limit.

    Gives sum_p max_f s_f S_fp (S: softmax over patches) and sum_p sum_f M_fp for every picture. With the strongest
    feature f*(p) of a patch and v_p its value, the gradient of the first is that of a softmax which few entries reach:
    [f = f*(p)] g v_p - S_fp h_f with h_f = sum over the patches of f of g v_p. It cannot be differentiated twice.
    """

    @staticmethod
    def forward(
        ctx: Any, places: Float[Tensor, "batch patches features"], scale: Float[Tensor, "batch features"]
    ) -> tuple[Float[Tensor, "batch"], Float[Tensor, "batch"]]:
        weighted = places.softmax(1).mul_(scale[:, None])
        best, which = weighted.max(2)
        ctx.save_for_backward(weighted, scale, best, which)
        return best.sum(1), places.sum((1, 2))

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, covered: Float[Tensor, "batch"], mass: Float[Tensor, "batch"]
    ) -> tuple[Float[Tensor, "batch patches features"], Float[Tensor, "batch features"]]:
        weighted, scale, best, which = ctx.saved_tensors
        reached = covered[:, None] * best
        # Every patch has a place of its own here: sums at shared places would differ from run to run on a GPU.
        of_scale = torch.zeros_like(weighted).scatter_(2, which[..., None], reached[..., None]).sum(1)
        of_scale = torch.where(scale > 0, of_scale / scale, 0.0)
        of_places = torch.addcmul(mass[:, None, None], weighted, of_scale[:, None], value=-1)
        return of_places.scatter_add_(2, which[..., None], reached[..., None]), of_scale


def total(terms: dict[str, Tensor]) -> Float[Tensor, ""]:
    """Sum of the terms."""
    return torch.stack(list(terms.values())).sum()
