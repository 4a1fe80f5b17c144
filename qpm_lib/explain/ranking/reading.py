"""What the decoder reads of a picture: tokens of several depths, and what the classifier makes of the last of them."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from qpm_lib.backbones import FrozenBackbone, Tokens, tapped
from qpm_lib.explain.target import Target


class Reading(NamedTuple):
    """All that the decoder gets beside the picture.

    Attributes
    ----------
    tokens : patch tokens of several depths. whole : the CLS token. evidence : gradient times token at the end of the
        backbone, for the class and for its strongest rival. lead : what the class asks for and the rival does not, as a
        direction in the space of tokens: the gradient of the difference of their logits at each patch, or, of a head
        that reads the CLS token, there.
    """

    tokens: Sequence[Float[Tensor, "batch patches _"]]
    whole: Float[Tensor, "batch dim"]
    evidence: Float[Tensor, "batch patches 2"]
    lead: Float[Tensor, "batch patches dim"]


@torch.no_grad()
def several_depths(
    backbone: FrozenBackbone, pixels: Float[Tensor, "batch 3 size size"]
) -> tuple[list[Float[Tensor, "batch patches _"]], Tokens]:
    """Patch tokens after one and two thirds of the depth and at the end, on one grid; and what comes out at the end."""
    blocks = len(backbone.blocks)
    names = [f"blocks.{max(1, share * blocks // 3) - 1}.output" for share in (1, 2)]
    with tapped(backbone, *names) as taps:
        last = backbone(pixels)
    found = [taps[name].float() for name in names]
    if backbone.is_transformer:
        found = [tokens[:, backbone.n_prefix :] for tokens in found]
    else:
        found = [F.adaptive_avg_pool2d(stage, backbone.grid).flatten(2).transpose(1, 2) for stage in found]
    return [*found, last.patches.float()], last


def read(target: Target, pixels: Float[Tensor, "batch 3 size size"], classes: Int[Tensor, "batch"]) -> Reading:
    """Look at pictures: one forward pass, then gradients through the head alone."""
    tokens, last = several_depths(target.backbone, pixels)
    patches, whole = (part.detach().float().requires_grad_() for part in last)
    with torch.enable_grad():
        logits = target.read(Tokens(patches, whole))
        rivals = logits.detach().scatter(1, classes[:, None], -torch.inf).argmax(1)
        slopes = [_slopes(target.score(logits, which).sum(), patches, whole) for which in (classes, rivals)]
    (own, own_whole), (other, other_whole) = slopes
    evidence = torch.stack([(slope * patches.detach()).sum(2) for slope in (own, other)], 2)
    evidence = evidence / evidence[..., :1].abs().amax((1, 2), keepdim=True).clamp(min=1e-12)
    lead = own - other + (own_whole - other_whole)[:, None]
    return Reading(tokens, whole.detach(), evidence, F.layer_norm(lead, lead.shape[-1:]))


def _slopes(score: Tensor, patches: Tensor, whole: Tensor) -> list[Tensor]:
    if not score.requires_grad:
        return [torch.zeros_like(patches), torch.zeros_like(whole)]
    found = torch.autograd.grad(score, [patches, whole], retain_graph=True, allow_unused=True)
    return [torch.zeros_like(x) if slope is None else slope for x, slope in zip((patches, whole), found, strict=True)]
