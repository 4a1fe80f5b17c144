"""Prediction sets along the hierarchy of a picture, with a promise: they hold the true class as often as asked."""

import logging
import math
from typing import Literal, NamedTuple, get_args

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from qpm_lib.conformal.hierarchy import Hierarchy, features_per_class, hierarchy, path_scores
from qpm_lib.conformal.quantile import check_alpha, conformal_quantile, smallest_alpha

log = logging.getLogger(__name__)
Split = Literal["strict", "published"]


class Rule(NamedTuple):
    """What sets are made with: classes that go along below `level` at least as far as `quantile` says. `count`: of the
    pictures behind the quantile; it is infinite, and sets hold all classes, where these are too few.
    """

    level: int
    quantile: float
    count: int

    @property
    def share(self) -> float | None:
        """Beyond the classes that go along down to the level: how strong the features of a class must be together, as
        a share of those of the predicted class, to belong to the set as well. None where no such class does.
        """
        return None if self.quantile < 1 else max(0.0, 2 - self.quantile)


class Calibration(NamedTuple):
    """What is kept of m calibration pictures: enough for every alpha.

    Attributes
    ----------
    depth : down to which level the true class has the path of the predicted one. scores : of the true class, for each
        level 0 to k. for_level : pictures that choose the level; the others give the quantile (both where all are set,
        as published).
    """

    depth: Int[Tensor, "m"]
    scores: Float[Tensor, "m levels"]
    for_level: Bool[Tensor, "m"]

    def rule(self, alpha: float) -> Rule:
        """Level and quantile for alpha: the deepest level at which the true class is still there in a share 1 - alpha
        of the pictures, then the quantile of the scores for that level.

        Raises
        ------
        ValueError : for alpha outside (0, 1).
        """
        check_alpha(alpha)
        whole = bool(self.for_level.all())
        scores = self.scores if whole else self.scores[~self.for_level]
        deep = self.depth if whole else self.depth[self.for_level]
        kept = (deep[:, None] >= torch.arange(self.scores.shape[1])).float().mean(0)
        level = int((kept >= 1 - alpha - 1e-9).nonzero().max())
        return Rule(level, conformal_quantile(scores[:, level], alpha), len(scores))


class HierarchicalSets:
    """Sets of classes that share the path of the prediction (CHiQPM, arXiv 2511.20779).

    Parameters
    ----------
    weight : W (C, n), binary. split : `strict` chooses the level on one half of the calibration pictures and the
        quantile on the other, which keeps the promise exactly; `published` uses all of them for both. seed : of the
        halves.

    Raises
    ------
    ValueError : for another split, or a class layer that is not binary.
    """

    def __init__(self, weight: Float[Tensor, "classes n"], *, split: Split = "strict", seed: int = 0) -> None:
        if split not in get_args(Split):
            raise ValueError(f"split (={split!r}) must be one of {', '.join(get_args(Split))}")
        features_per_class(weight)
        self.weight, self.split, self.seed = weight, split, seed
        self.calibration: Calibration | None = None
        self.alpha = 0.1

    def fit(
        self,
        vector: Float[Tensor, "m n"],
        logits: Float[Tensor, "m classes"],
        labels: Int[Tensor, "m"],
        alpha: float = 0.1,
    ) -> "HierarchicalSets":
        """Calibrate on pictures that the model has not been trained on.

        Raises
        ------
        ValueError : for alpha outside (0, 1), fewer than two pictures, a label that is no class, negative features, or
            a class layer that is not binary.
        """
        if len(labels) < 2:
            raise ValueError(f"{len(labels)} calibration pictures are too few: at least 2 are needed")
        if not 0 <= int(labels.min()) <= int(labels.max()) < len(self.weight):
            raise ValueError(f"labels {labels.min()} to {labels.max()} are not those of {len(self.weight)} classes")
        tree, rows = hierarchy(vector, self.weight, logits.argmax(1)), torch.arange(len(labels))
        levels = range(tree.features.shape[2] + 1)
        scores = torch.stack([path_scores(tree, level)[rows, labels] for level in levels], 1)
        for_level = torch.ones(len(labels), dtype=torch.bool)
        if self.split == "strict":
            shuffled = torch.randperm(len(labels), generator=torch.Generator().manual_seed(self.seed))
            for_level[shuffled[: (len(labels) + 1) // 2]] = False
        self.calibration, self.alpha = Calibration(tree.depth[rows, labels].cpu(), scores.cpu(), for_level), alpha
        if math.isinf(self.rule().quantile):
            log.warning("%s", too_few(self.rule().count, alpha))
        return self

    def rule(self, alpha: float | None = None) -> Rule:
        """Level and quantile, for the alpha of `fit` or another one."""
        if self.calibration is None:
            raise ValueError("these sets are not calibrated: call fit first")
        return self.calibration.rule(self.alpha if alpha is None else alpha)

    def tree(self, vector: Float[Tensor, "batch n"], logits: Float[Tensor, "batch classes"]) -> Hierarchy:
        """The hierarchy of pictures under their predicted classes."""
        return hierarchy(vector, self.weight, logits.argmax(1))

    def predict(
        self, vector: Float[Tensor, "batch n"], logits: Float[Tensor, "batch classes"], alpha: float | None = None
    ) -> Bool[Tensor, "batch classes"]:
        """The classes of each set, for the alpha of `fit` or another one."""
        rule = self.rule(alpha)
        return path_scores(self.tree(vector, logits), rule.level) <= rule.quantile

    def members(
        self, vector: Float[Tensor, "n"], logits: Float[Tensor, "classes"], alpha: float | None = None
    ) -> list[int]:
        """The set of one picture: the predicted class first, then those that go along furthest."""
        rule, tree = self.rule(alpha), self.tree(vector[None], logits[None])
        scores, predicted = path_scores(tree, rule.level)[0], int(tree.predicted[0])
        inside = [c for c in scores.argsort(stable=True).tolist() if scores[c] <= rule.quantile]
        return sorted(inside, key=lambda c: c != predicted)


def too_few(count: int, alpha: float) -> str:
    """What to say where calibration pictures do not support alpha."""
    return (
        f"{count} calibration pictures do not support alpha = {alpha:g} (confidence {1 - alpha:g}): every set holds "
        f"all classes; use more pictures, or an alpha of at least {smallest_alpha(count):.3g}"
    )
