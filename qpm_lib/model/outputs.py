"""What a model says about the pictures of a store, batch by batch."""

from collections.abc import Iterator
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from qpm_lib.core import mixed_precision
from qpm_lib.features import FeatureStore
from qpm_lib.model.adapter import Output
from qpm_lib.model.training import log
from qpm_lib.selection import locality


@runtime_checkable
class Classifier(Protocol):
    """What the loop and the metrics need of a model."""

    class_weight: Tensor
    device: torch.device

    def __call__(self, patches: Tensor, cls: Tensor) -> Output:
        """Maps, vector and logits."""
        ...


def outputs(
    model: Classifier, store: FeatureStore, rows: Int[Tensor, "rows"], batch_size: int = 64
) -> Iterator[tuple[Output, Int[Tensor, "batch"]]]:
    """Outputs of a model over some rows in order, batch by batch, with the labels."""
    for batch in store.batches(rows, batch_size):
        with torch.no_grad(), mixed_precision(store.device):
            out = model(batch.patches, batch.cls)
        yield Output(*(t.float() for t in out)), batch.labels


def feature_vectors(
    model: Classifier, store: FeatureStore, rows: Int[Tensor, "rows"]
) -> Float[np.ndarray, "rows features"]:
    """Pooled features of some rows, in evaluation mode."""
    return np.concatenate([out.vector.cpu().numpy() for out, _ in outputs(model, store, rows)])


def map_locality(
    model: Classifier, store: FeatureStore, *, count: int = 200, seed: int = 0
) -> Float[np.ndarray, "features"]:
    """How much each feature keeps to one place (`selection.locality`), on `count` training pictures drawn by `seed`."""
    rows = store.rows(train=True)
    some = rows[torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed))[:count]]
    return locality(np.concatenate([out.maps.cpu().numpy() for out, _ in outputs(model, store, some)]))


def accuracy(model: Classifier, store: FeatureStore, *, train: bool = False) -> float:
    """Share of correct predictions on the test split, or on the training split."""
    rows = store.rows(train)
    return sum(int((out.logits.argmax(1) == labels).sum()) for out, labels in outputs(model, store, rows)) / len(rows)


def correct_rows(model: Classifier, store: FeatureStore, *, train: bool = False) -> Int[Tensor, "rows"]:
    """Rows of the test split (or the training split) that a model predicts correctly: figures take their pictures from
    these.

    A model that is always wrong has none; all rows are returned then, and the log says so.
    """
    rows = store.rows(train)
    right = torch.cat([(out.logits.argmax(1) == labels).cpu() for out, labels in outputs(model, store, rows)])
    if not right.any():
        log.warning("no picture is predicted correctly: examples are taken from all pictures")
        return rows
    return rows[right]


def most_activating(
    model: Classifier, store: FeatureStore, *, count: int = 6, train: bool = False
) -> Int[np.ndarray, "n count"]:
    """Rows of the store on which each feature is strongest, among `correct_rows` only; fewer where there are fewer."""
    rows = correct_rows(model, store, train=train)
    vectors = torch.as_tensor(feature_vectors(model, store, rows))
    return rows[vectors.topk(min(count, len(rows)), dim=0).indices.T].numpy()


def outputs_of(model: Classifier, store: FeatureStore, rows: Int[Tensor, "rows"]) -> Output:
    """Outputs of a few rows at once."""
    parts = [out for out, _ in outputs(model, store, rows)]
    return Output(*(torch.cat(tensors) for tensors in zip(*parts, strict=True)))
