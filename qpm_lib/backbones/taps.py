"""Taps: what a frozen backbone computes on its way, by name, and the place from which gradients are taken."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from qpm_lib.backbones.frozen import FrozenBackbone

PARTS = ("input", "norm1", "attention", "output")


@contextmanager
def tapped(backbone: FrozenBackbone, *names: str) -> Iterator[dict[str, Tensor]]:
    """Inside, every run of the backbone leaves the activations of these places in the dictionary that is given.

    Where gradients are wanted (outside `torch.no_grad`), the graph begins at the first of the taps: what comes before
    it is computed without one, so that a gradient costs only what comes after. Hooks are removed whatever happens.

    Parameters
    ----------
    names : `blocks.I.PART`, counted from 0 or, negative, from the end. PART is `input` or `output` of the block,
        `norm1` (what enters attention, after the affine) or `attention` (weights after the softmax, (B, heads, T, T);
        the fused kernel is switched off for them). `final` is what comes out at the end, after the final norm. Tokens
        are (B, T, D), CLS token and registers first. Of a ResNet, blocks are its four stages, (B, D, h, w), and have
        no `norm1` and no `attention`.

    Raises
    ------
    ValueError : for a place that this backbone does not have.
    """
    found: dict[str, Tensor] = {}
    handles: list[Any] = []
    unfused: list[nn.Module] = []
    try:
        for name in names:
            _place(backbone, name, found, handles, unfused)
        yield found
    finally:
        for handle in handles:
            handle.remove()
        for attention in unfused:
            attention.fused_attn = True


def locate(backbone: FrozenBackbone, name: str) -> tuple[int, str]:
    """Number of the block and part of it that a tap names; `final` is the part `final` after the last block.

    Raises
    ------
    ValueError : for a place that this backbone does not have.
    """
    blocks = backbone.blocks
    if name == "final":
        return len(blocks), "final"
    number, _, part = name.removeprefix("blocks.").partition(".")
    offered = PARTS if backbone.is_transformer else ("input", "output")
    known = name.startswith("blocks.") and number.removeprefix("-").isdigit() and part in offered
    if not known or not -len(blocks) <= int(number) < len(blocks):
        raise ValueError(
            f"tap {name!r} is not in backbone {backbone.name}: choose final, or blocks.I.PART with I from "
            f"{-len(blocks)} to {len(blocks) - 1} and PART of {', '.join(offered)}"
        )
    return int(number) % len(blocks), part


def _place(
    backbone: FrozenBackbone, name: str, found: dict[str, Tensor], handles: list[Any], unfused: list[nn.Module]
) -> None:
    number, part = locate(backbone, name)

    def keep(tensor: Tensor) -> Tensor:
        if torch.is_grad_enabled() and not tensor.requires_grad:
            tensor = tensor.detach().requires_grad_()
        found[name] = tensor
        return tensor

    if part == "input":
        before = backbone.blocks[number].register_forward_pre_hook(lambda _, given: (keep(given[0]), *given[1:]))
        handles.append(before)
        return
    if part == "final":
        module = backbone.network.norm if backbone.is_transformer else backbone.blocks[-1]
    else:
        module = backbone.blocks[number].norm1 if part == "norm1" else backbone.blocks[number]
    if part == "attention":
        attention = module.attn
        if not hasattr(attention, "attn_drop") or not hasattr(attention, "fused_attn"):
            raise ValueError(
                f"backbone {backbone.name} computes attention in {type(attention).__name__}, which does not show its "
                "weights: choose a method that needs none, for example cdam"
            )
        if attention.fused_attn:
            attention.fused_attn = False
            unfused.append(attention)
        module = attention.attn_drop
    handles.append(module.register_forward_hook(lambda _, __, out: keep(out)))
