"""What the decoder reads of a picture: tokens of several depths, and the evidence that each holds for the class."""

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from qpm_lib.backbones import FrozenBackbone, Tokens, tapped
from qpm_lib.explain.target import Target


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


def token_evidence(target: Target, tokens: Tokens, classes: Int[Tensor, "batch"]) -> Float[Tensor, "batch patches 2"]:
    """Gradient times token at the end of the backbone, for the class and for the strongest other one: only the head is
    computed. In parts of the largest value of the first; zero where a head does not read patches.
    """
    patches = tokens.patches.detach().float().requires_grad_()
    with torch.enable_grad():
        logits = target.read(Tokens(patches, tokens.cls.detach().float()))
        if not logits.requires_grad:
            return patches.new_zeros(*patches.shape[:2], 2)
        rivals = logits.detach().scatter(1, classes[:, None], -torch.inf).argmax(1)
        found = []
        for which in (classes, rivals):
            score = target.score(logits, which).sum()
            [slope] = torch.autograd.grad(score, patches, retain_graph=True, allow_unused=True)
            found.append(patches.new_zeros(patches.shape[:2]) if slope is None else (slope * patches).sum(2).detach())
    evidence = torch.stack(found, 2)
    return evidence / evidence[..., :1].abs().amax((1, 2), keepdim=True).clamp(min=1e-12)
