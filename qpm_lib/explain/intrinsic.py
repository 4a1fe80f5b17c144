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

from qpm_lib.adapter import Output
from qpm_lib.backbones import FrozenBackbone
from qpm_lib.features import FeatureStore
from qpm_lib.model import DinoQPM
from qpm_lib.training import Classifier, feature_vectors, outputs

log = logging.getLogger(__name__)


class IntrinsicExplanation:
    """Exact local explanation of a `DinoQPM`: the k weighted feature maps of the target class, added up.

    The sum over the picture is the target's logit plus a constant of the class. Follows the contract of `base.ExplanationMethod`.
    """

    def __init__(self, model: DinoQPM) -> None:
        self.model = model

    def __call__(self, images: Sequence[Image.Image], targets: Int[Tensor, "batch"]) -> Float[Tensor, "batch g g"]:
        """Maps (B, g, g), non-negative for a QPM, signed for the baselines."""
        return self.model.local_map(self.model.output(images), targets)


class ClassMapExplanation:
    """Class activation map of any classifier, sum_f W_cf M_f: for the dense model and the linear probe, as a comparison.

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


def correct_rows(model: Classifier, store: FeatureStore, *, train: bool = False) -> Int[Tensor, "rows"]:
    """Rows of the test split (or the training split) that a model predicts correctly: figures take their pictures from these.

    A model that is always wrong has none; all rows are returned then, and the log says so.
    """
    rows = store.rows(train)
    right = torch.cat([(out.logits.argmax(1) == labels).cpu() for out, labels in outputs(model, store, rows)])
    if not right.any():
        log.warning("no picture is predicted correctly: examples are taken from all pictures")
        return rows
    return rows[right]


def most_activating(model: Classifier, store: FeatureStore, *, count: int = 6, train: bool = False) -> Int[np.ndarray, "n count"]:
    """Rows of the store on which each feature is strongest, among `correct_rows` only; fewer where there are fewer."""
    rows = correct_rows(model, store, train=train)
    vectors = torch.as_tensor(feature_vectors(model, store, rows))
    return rows[vectors.topk(min(count, len(rows)), dim=0).indices.T].numpy()


def outputs_of(model: Classifier, store: FeatureStore, rows: Int[Tensor, "rows"]) -> Output:
    """Outputs of a few rows at once."""
    parts = [out for out, _ in outputs(model, store, rows)]
    return Output(*(torch.cat(tensors) for tensors in zip(*parts, strict=True)))
