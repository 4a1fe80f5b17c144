"""Tokens in memory in the place of a store on disk."""

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from qpm_lib.core import move
from qpm_lib.features.base import FeatureBatch
from qpm_lib.features.store import FeatureStore


class TensorStore(FeatureStore):
    """Tokens in memory in the place of a store on disk.

    Parameters
    ----------
    patches : (N, P, D). cls : (N, D). labels : (N,) classes 0 to C-1. is_train : (N,).
    """

    def __init__(
        self,
        patches: Float[Tensor, "images patches dim"],
        cls: Float[Tensor, "images dim"],
        labels: Int[Tensor, "images"],
        *,
        class_names: tuple[str, ...],
        is_train: Tensor | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        self._patches, self._cls, self.labels, self.class_names = patches, cls, labels, class_names
        self.is_train = torch.ones(len(labels), dtype=torch.bool) if is_train is None else is_train
        self.n_patches, self.width = patches.shape[1:]
        self.grid, self.device, self.backbone_fingerprint = round(self.n_patches**0.5), torch.device(device), {}

    def __len__(self) -> int:
        return len(self.labels)

    def to(self, device: torch.device | str) -> "TensorStore":
        """Give batches on a device."""
        self.device = torch.device(device)
        return self

    def fetch(self, rows: Int[Tensor, "batch"]) -> FeatureBatch:
        """Some rows, in the order given, on the store's device."""
        chosen = (part[move(rows, part.device)] for part in (self._patches, self._cls, self.labels))
        return FeatureBatch(*(move(part, self.device) for part in chosen))

    def cls_tokens(self, rows: Int[Tensor, "rows"]) -> Float[np.ndarray, "rows dim"]:
        """CLS tokens as a NumPy array."""
        return self._cls[rows].numpy()
