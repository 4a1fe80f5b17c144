"""What an encoder computes at several depths, as one descriptor for each patch."""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from qpm_lib.backbones import FrozenBackbone

ARTEFACT = 4.0  # tokens with this many times the median norm


class Described(NamedTuple):
    """Activations of B pictures at several depths, patch by patch.

    Attributes
    ----------
    tokens : (B, P, D) descriptors. artefacts : (B, P), patches of a transformer whose norm at the deepest tap is more
        than four times the median: such tokens hold something about the whole picture, not their place (Darcet et al.
        2024).
    """

    tokens: Float[Tensor, "batch patches dim"]
    artefacts: Bool[Tensor, "batch patches"]

    def unusual(self) -> "Described":
        """What is not usual at its place: tokens less the mean of all pictures there, which holds the place itself."""
        return Described(self.tokens - self.tokens.mean(0, keepdim=True), self.artefacts)


def descriptors(backbone: FrozenBackbone, taps: list[Tensor], side: int) -> Described:
    """Activations (B, T, D) of a transformer, or (B, D, h, w) of a convolutional network, at each depth, patch by patch
    on a grid of `side`; see `NAVE`.

    Raises
    ------
    ValueError : for activations that are not finite.
    """
    if not all(bool(tap.isfinite().all()) for tap in taps):
        raise ValueError(f"activations of backbone {backbone.name} are not finite: check its weights")
    if backbone.is_transformer:
        taps = [tap[:, backbone.n_prefix :] for tap in taps]
        norms = taps[-1].norm(dim=-1)
        artefacts = norms > ARTEFACT * norms.median(1, keepdim=True).values
        unit = [F.normalize(tap, dim=-1) / len(taps) ** 0.5 for tap in taps]
        return Described(torch.cat(unit, -1), artefacts)
    size = (side, side)
    scaled = [F.interpolate(tap, size, mode="bilinear", antialias=True) for tap in taps]
    flat = torch.cat(scaled, 1).flatten(2).transpose(1, 2)
    spread = flat.std(1, keepdim=True, correction=0)
    flat = (flat - flat.mean(1, keepdim=True)) / spread.where(spread > 1e-6, torch.ones_like(spread))
    return Described(flat, torch.zeros(flat.shape[:2], dtype=torch.bool, device=flat.device))
