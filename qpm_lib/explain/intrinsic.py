"""Explanations that come with the model: nothing is estimated, the maps are what the score is made of."""

import logging
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from einops import einsum
from jaxtyping import Float, Int
from PIL import Image
from torch import Tensor

from qpm_lib.backbones import FrozenBackbone
from qpm_lib.model import Classifier, DinoQPM

log = logging.getLogger(__name__)


class IntrinsicExplanation:
    """Exact local explanation of a `DinoQPM`: the k weighted feature maps of the target class, added up.

    The sum over the picture is the target's logit plus a constant of the class. Follows the contract of
    `base.ExplanationMethod`.
    """

    def __init__(self, model: DinoQPM) -> None:
        self.model = model

    def __call__(self, images: Sequence[Image.Image], targets: Int[Tensor, "batch"]) -> Float[Tensor, "batch g g"]:
        """Maps (B, g, g), non-negative for a QPM, signed for the baselines."""
        return self.model.local_map(self.model.output(images), targets)


class ClassMapExplanation:
    """Class activation map of any classifier, sum_f W_cf M_f: for the dense model and the linear probe,
    as a comparison.

    Of the probe, M are the patch tokens; nothing makes that map local.
    """

    def __init__(self, model: Classifier, backbone: FrozenBackbone) -> None:
        self.model, self.backbone = model, backbone

    def __call__(self, images: Sequence[Image.Image], targets: Int[Tensor, "batch"]) -> Float[Tensor, "batch g g"]:
        """Maps (B, g, g), signed."""
        with torch.no_grad():
            tokens = self.backbone.tokens(self.backbone.preprocess(list(images)))
            maps = self.model(tokens.patches.to(self.model.device), tokens.cls.to(self.model.device)).maps
            return einsum(self.model.class_weight.detach()[targets], maps, "b f, b f y x -> b y x")


class Comparison(NamedTuple):
    """Features of two classes, as positions 0 to n-1: only in the first, in both, only in the second."""

    only_a: Int[np.ndarray, "a"]
    shared: Int[np.ndarray, "s"]
    only_b: Int[np.ndarray, "b"]


def compare_classes(weight: Float[Tensor, "classes n"], a: int, b: int) -> Comparison:
    """Which features two classes share and which tell them apart."""
    first, second = weight[a].cpu().numpy() != 0, weight[b].cpu().numpy() != 0
    return Comparison(np.flatnonzero(first & ~second), np.flatnonzero(first & second), np.flatnonzero(second & ~first))
