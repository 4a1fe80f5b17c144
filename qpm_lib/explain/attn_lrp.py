"""AttnLRP: layer-wise relevance propagation through attention (Achtibat et al., ICML 2024, arXiv 2402.05602)."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from qpm_lib.backbones import FrozenBackbone, tapped
from qpm_lib.explain.base import Method

_FIRST = "blocks.0.input"


def _half(tensor: Tensor) -> Tensor:
    """The same value, with half of its gradient: two factors of a product share its relevance."""
    return tensor / 2 + (tensor / 2).detach()


def _frozen_norm(norm: nn.LayerNorm, x: Tensor) -> Tensor:
    """LayerNorm whose standard deviation is a constant (identity rule)."""
    spread = (x.var(-1, unbiased=False, keepdim=True) + norm.eps).sqrt().detach()
    out = (x - x.mean(-1, keepdim=True)) / spread
    out = out if norm.weight is None else out * norm.weight
    return out if norm.bias is None else out + norm.bias


def _frozen_slope(x: Tensor, out: Tensor) -> Tensor:
    """An activation as a product with the constant out / x (identity rule)."""
    return x * torch.where(x == 0, torch.zeros_like(x), out / torch.where(x == 0, torch.ones_like(x), x)).detach()


@contextmanager
def relevance_rules(backbone: FrozenBackbone) -> Iterator[None]:
    """Inside, gradient times activation of a transformer is relevance after the rules of AttnLRP; values stay the same.

    Raises
    ------
    ValueError : for a normalisation that is no LayerNorm.
    """
    hooks: list[Any] = []

    def on(module: nn.Module, rule: Any) -> None:
        hooks.append(module.register_forward_hook(rule))

    try:
        for block in backbone.blocks:
            for norm in (block.norm1, block.norm2):
                _check_norm(norm)
            # queries, keys and values come from norm1: each is a factor of a product
            on(block.norm1, lambda norm, given, _: _half(_frozen_norm(norm, given[0])))
            on(block.norm2, lambda norm, given, _: _frozen_norm(norm, given[0]))
            on(block.attn.attn_drop, lambda _, __, out: _half(out))
            on(block.mlp.act, lambda _, given, out: _frozen_slope(given[0], out))
            if hasattr(block.mlp, "gate_last") or hasattr(block.mlp, "fc1_g"):  # gate and value are factors, too
                on(block.norm2, lambda _, __, out: _half(out))
        final = backbone.network.norm
        _check_norm(final)
        on(final, lambda norm, given, _: _frozen_norm(norm, given[0]))
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _check_norm(norm: nn.Module) -> None:
    if not isinstance(norm, nn.LayerNorm):
        raise ValueError(f"attn_lrp has no rule for {type(norm).__name__}: choose relevance_propagation or cdam")


class AttnLRP(Method):
    """Relevance of each token at the input of the first block, sum over its D numbers of value times (modified)
    gradient.

    The rules: LayerNorm and GELU as products with a constant; the two factors of a matrix product share its relevance;
    the softmax by its first-order term, which keeps a part of the relevance for itself (its bias in the paper), so that
    tokens add up to the logit only together with that part and with the biases. Position embeddings count as part of
    their token. The gamma rule, which the authors also use for convolutions and linear layers of vision transformers,
    is not used: linear layers follow the epsilon rule with epsilon 0.
    """

    needs_transformer = True

    def relevance(
        self, pixels: Float[Tensor, "batch 3 size size"], targets: Int[Tensor, "batch"]
    ) -> Float[Tensor, "batch tokens"]:
        """Relevance of all tokens, CLS token and registers first."""
        backbone = self.target.backbone
        # the taps of attention switch the fused kernel off, whose factors cannot be told apart
        unfused = [f"blocks.{i}.attention" for i in range(len(backbone.blocks))]
        with tapped(backbone, _FIRST, *unfused) as taps, relevance_rules(backbone), torch.enable_grad():
            score = self.target.score(self.target(pixels), targets)
        tokens = taps[_FIRST]
        [slope] = torch.autograd.grad(score.sum(), tokens)
        return (tokens.detach() * slope).sum(2)

    def maps(
        self, pixels: Float[Tensor, "batch 3 size size"], targets: Int[Tensor, "batch"]
    ) -> Float[Tensor, "batch g g"]:
        """Maps (B, g, g), signed."""
        return self.target.on_grid(self.relevance(pixels, targets))
