"""Explanations by attention weights: of one block, through all blocks, and weighted with gradients.

T tokens (CLS token and registers first), A (B, heads, T, T) the attention weights of a block: row i says where token i
looks. What is read at the end is the row of the token that the classifier reads: the CLS token, or, where it pools
patches, the mean of their rows (ours).
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from qpm_lib.backbones import tapped
from qpm_lib.explain.base import Method


class _WithAttention(Method):
    needs_transformer = True

    @property
    def places(self) -> list[str]:
        """Taps of the attention weights of all blocks."""
        return [f"blocks.{i}.attention" for i in range(len(self.target.backbone.blocks))]

    def read_row(self, flow: Float[Tensor, "batch tokens tokens"]) -> Float[Tensor, "batch g g"]:
        """From what goes from token to token to a map of what arrives where the classifier reads."""
        first = self.target.backbone.n_prefix
        return self.target.on_grid(flow[:, 0] if self.target.reads_cls else flow[:, first:].mean(1))

    def weights(self, pixels: Float[Tensor, "batch 3 size size"], places: Sequence[str]) -> list[Tensor]:
        """Attention weights (B, heads, T, T) of some blocks, without gradients."""
        with torch.no_grad(), tapped(self.target.backbone, *places) as taps:
            self.target.backbone(pixels)
        return [taps[place] for place in places]


class AttentionMap(_WithAttention):
    """Where the CLS token looks in the last block, mean over heads (Caron et al. 2021); knows of no class."""

    def maps(
        self, pixels: Float[Tensor, "batch 3 size size"], targets: Int[Tensor, "batch"]
    ) -> Float[Tensor, "batch g g"]:
        """Maps (B, g, g), non-negative."""
        [weights] = self.weights(pixels, self.places[-1:])
        return self.target.on_grid(weights.mean(1)[:, 0])


class Rollout(_WithAttention):
    """Attention rollout, the product of (A + I) / 2 over all blocks, A the mean over heads (Abnar and Zuidema 2020).

    The half that is the identity stands for the residual connection. Knows of no class.
    """

    def maps(
        self, pixels: Float[Tensor, "batch 3 size size"], targets: Int[Tensor, "batch"]
    ) -> Float[Tensor, "batch g g"]:
        """Maps (B, g, g), non-negative."""
        flow: Tensor | None = None
        for weights in self.weights(pixels, self.places):
            mean = weights.mean(1)
            step = (mean + torch.eye(mean.shape[-1], device=mean.device)) / 2
            flow = step if flow is None else step @ flow
        return self.read_row(flow)


class RelevancePropagation(_WithAttention):
    """Relevance through self-attention (Chefer, Gur and Wolf 2021, "generic attention-model explainability").

    R = I; for each block, A' = mean over heads of the positive part of (d f_c / d A) A, and R <- R + A' R.
    """

    def maps(
        self, pixels: Float[Tensor, "batch 3 size size"], targets: Int[Tensor, "batch"]
    ) -> Float[Tensor, "batch g g"]:
        """Maps (B, g, g), non-negative."""
        with tapped(self.target.backbone, *self.places) as taps, torch.enable_grad():
            score = self.target.score(self.target(pixels), targets)
        weights = [taps[place] for place in self.places]
        slopes = torch.autograd.grad(score.sum(), weights)
        size = weights[0].shape[-1]
        relevance = torch.eye(size, device=pixels.device).expand(len(pixels), -1, -1)
        for weight, slope in zip(weights, slopes, strict=True):
            relevance = relevance + (weight.detach() * slope).clamp_min(0).mean(1) @ relevance
        return self.read_row(relevance - torch.eye(size, device=pixels.device))


class LeGrad(_WithAttention):
    """LeGrad (Bousselham et al., arXiv 2404.03214): the sensitivity of the score to attention, block by block.

    For each block l, s_l is the score that the classifier gives to the tokens after that block (through the final
    norm); the positive part of d s_l / d A_l, mean over heads and over the tokens that look, mean over blocks.
    The paper then scales a map to 0..1 for display, which is left to the display here.
    """

    def maps(
        self, pixels: Float[Tensor, "batch 3 size size"], targets: Int[Tensor, "batch"]
    ) -> Float[Tensor, "batch g g"]:
        """Maps (B, g, g), non-negative."""
        target, backbone = self.target, self.target.backbone
        ends = [f"blocks.{i}.output" for i in range(len(self.places))]
        with tapped(backbone, *self.places, *ends) as taps, torch.enable_grad():
            backbone(pixels)
            scores = [target.read(backbone.split(backbone.network.norm(taps[end]))) for end in ends]
        total = torch.zeros(len(pixels), taps[ends[0]].shape[1], device=pixels.device)
        for place, logits in zip(self.places, scores, strict=True):
            [slope] = torch.autograd.grad(target.score(logits, targets).sum(), taps[place], retain_graph=True)
            total += slope.clamp_min(0).mean((1, 2))
        return target.on_grid(total / len(ends))
