"""Explanations that come with the model: nothing is estimated, the maps are what the score is made of."""

from typing import NamedTuple

import numpy as np
import torch
from einops import einsum
from jaxtyping import Float, Int
from torch import Tensor

from qpm_lib.explain.base import Method
from qpm_lib.explain.target import Target
from qpm_lib.model import DinoQPM


class IntrinsicExplanation(Method):
    """Exact local explanation of a `DinoQPM`: the k weighted feature maps of the target class, added up.

    The sum over the picture is the target's logit plus a constant of the class; maps are non-negative for a QPM, signed
    for the baselines.

    Raises
    ------
    ValueError : for a model of another kind.
    """

    def __init__(self, target: Target, *, batch_size: int = 32) -> None:
        super().__init__(target, batch_size=batch_size)
        if not isinstance(target.model, DinoQPM):
            raise ValueError(
                f"the intrinsic explanation is that of a DinoQPM, not of {type(target.model).__name__}: "
                "choose class_activation_map"
            )
        if (pooling := target.model.adapter.config.pooling) not in ("avg", "max"):
            raise ValueError(f"a model with adapter.pooling (={pooling!r}) has no intrinsic map: choose attn_lrp")

    def maps(
        self, pixels: Float[Tensor, "batch 3 size size"], targets: Int[Tensor, "batch"]
    ) -> Float[Tensor, "batch g g"]:
        """Maps (B, g, g)."""
        model = self.target.model
        with torch.no_grad():
            return model.local_map(self.target.output(self.target.backbone(pixels)), targets.to(model.device))


class ClassActivationMap(Method):
    """Class activation map of any classifier, sum_f W_cf M_f, signed (Zhou et al. 2016).

    Of the linear probe, M are the patch tokens ("DINO GradCAM" in the figures of DINO-QPM); nothing makes that map
    local.
    """

    def maps(
        self, pixels: Float[Tensor, "batch 3 size size"], targets: Int[Tensor, "batch"]
    ) -> Float[Tensor, "batch g g"]:
        """Maps (B, g, g)."""
        model = self.target.model
        with torch.no_grad():
            maps = self.target.output(self.target.backbone(pixels)).maps
            return einsum(model.class_weight.detach()[targets.to(model.device)], maps, "b f, b f y x -> b y x")


class Comparison(NamedTuple):
    """Features of two classes, as positions 0 to n-1: only in the first, in both, only in the second."""

    only_a: Int[np.ndarray, "a"]
    shared: Int[np.ndarray, "s"]
    only_b: Int[np.ndarray, "b"]


def compare_classes(weight: Float[Tensor, "classes n"], a: int, b: int) -> Comparison:
    """Which features two classes share and which tell them apart."""
    first, second = weight[a].cpu().numpy() != 0, weight[b].cpu().numpy() != 0
    return Comparison(np.flatnonzero(first & ~second), np.flatnonzero(first & second), np.flatnonzero(second & ~first))
