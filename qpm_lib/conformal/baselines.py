"""Prediction sets from the softmax alone: what the sets along the hierarchy are compared with."""

from typing import Literal, get_args

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from qpm_lib.conformal.quantile import conformal_quantile

Score = Literal["thr", "aps", "raps"]


class SoftmaxSets:
    """THR (Sadinle, Lei and Wasserman, 2019), APS (Romano, Sesia and Candes, 2020) and RAPS (Angelopoulos et al.,
    2021), all with the same calls as `HierarchicalSets`.

    Parameters
    ----------
    score : `thr`, one minus the probability of the class; `aps`, the probability of all classes before it in order of
        probability, and a random share of its own; `raps`, the same plus `penalty` for each rank beyond `free`. seed :
        of the random shares, so that a call gives the same sets again.
    """

    def __init__(self, score: Score = "thr", *, penalty: float = 0.01, free: int = 5, seed: int = 0) -> None:
        if score not in get_args(Score):
            raise ValueError(f"score (={score!r}) must be one of {', '.join(get_args(Score))}")
        self.score, self.penalty, self.free, self.seed = score, penalty, free, seed
        self.alpha, self._kept = 0.1, torch.empty(0)

    def _scores(self, logits: Float[Tensor, "batch classes"], seed: int) -> Float[Tensor, "batch classes"]:
        probability = logits.double().softmax(1)
        if self.score == "thr":
            return 1 - probability
        ordered, order = probability.sort(dim=1, descending=True, stable=True)
        drawn = torch.rand(len(logits), 1, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        reached = ordered.cumsum(1) - drawn.to(ordered.device) * ordered
        if self.score == "raps":
            ranks = torch.arange(1, logits.shape[1] + 1, device=logits.device)
            reached = reached + self.penalty * (ranks - self.free).clamp_min(0).to(reached)
        return torch.empty_like(reached).scatter_(1, order, reached)

    def fit(
        self, vector: object, logits: Float[Tensor, "m classes"], labels: Int[Tensor, "m"], alpha: float = 0.1
    ) -> "SoftmaxSets":
        """Calibrate; features are not looked at.

        Raises
        ------
        ValueError : for alpha outside (0, 1).
        """
        scores = self._scores(logits, 2 * self.seed)
        self._kept, self.alpha = scores[torch.arange(len(labels)), labels].cpu(), alpha
        conformal_quantile(self._kept, alpha)
        return self

    def predict(
        self, vector: object, logits: Float[Tensor, "batch classes"], alpha: float | None = None
    ) -> Bool[Tensor, "batch classes"]:
        """The classes of each set, for the alpha of `fit` or another one."""
        if not len(self._kept):
            raise ValueError("these sets are not calibrated: call fit first")
        quantile = conformal_quantile(self._kept, self.alpha if alpha is None else alpha)
        return self._scores(logits, 2 * self.seed + 1) <= quantile
