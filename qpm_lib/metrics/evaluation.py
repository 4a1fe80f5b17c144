"""All measures of one model on one feature store, streamed batch by batch."""

import math
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool
from torch import Tensor

from qpm_lib.data import ImageDataset
from qpm_lib.features import FeatureStore
from qpm_lib.metrics import interpretability as measure
from qpm_lib.training import Classifier, feature_vectors, outputs

MEASURES = {
    "accuracy": "accuracy (test)",
    "plausibility": "plausibility (test)",
    "plausibility_chance": "plausibility by chance",
    "pointing": "strongest patch on the object (test)",
    "sid": "SID@k (test)",
    "class_independence": "class-independence (train)",
    "contrastiveness": "contrastiveness (train)",
    "correlation": "correlation (train)",
    "structural_grounding": "structural grounding",
    "attribute_alignment": "attribute alignment (train)",
}


def _stack_masks(dataset: ImageDataset, rows: list[int], grid: int) -> Bool[Tensor, "images g g"]:
    """Masks of any size, each brought to the patch grid."""
    cells = [measure.grid_masks(torch.as_tensor(dataset.mask(row))[None], grid, dilate=False)[0] > 0 for row in rows]
    return torch.stack(cells)


def evaluate(model: Classifier, store: FeatureStore, dataset: ImageDataset, *, k: int = 5, seed: int = 0) -> dict[str, float | None]:
    """Measures of `MEASURES` by name; None where the data set lacks what a measure needs (masks, attributes).

    Parameters
    ----------
    k : features per picture for SID. Maps are read batch by batch, so memory does not grow with the data set.
    """
    rows, done = store.rows(train=False), 0
    sums: dict[str, float] = dict.fromkeys(("accuracy", "sid", "plausibility", "plausibility_chance", "pointing"), 0.0)
    n_sid = 0
    weight = model.class_weight.detach()
    for out, labels in outputs(model, store, rows):
        predicted = out.logits.argmax(1)
        sums["accuracy"] += float((predicted == labels).sum())
        spread = measure.sid_per_image(out.maps, weight, predicted, k)
        sums["sid"] += float(spread.nansum())
        n_sid += int((~spread.isnan()).sum())
        if dataset.masks is not None:
            masks = _stack_masks(dataset, rows[done : done + len(labels)].tolist(), store.grid)
            score, chance = measure.plausibility_per_image(out.maps, weight, predicted, masks)
            sums["plausibility"] += float(score.sum())
            sums["plausibility_chance"] += float(chance.sum())
            sums["pointing"] += measure.pointing(out.maps, weight, predicted, masks) * len(labels)
        done += len(labels)
    result: dict[str, float | None] = {name: value / len(rows) for name, value in sums.items()}
    result["sid"] = sums["sid"] / n_sid if n_sid else None
    if dataset.masks is None:
        result.update(dict.fromkeys(("plausibility", "plausibility_chance", "pointing")))
    return {**result, **_on_training_features(model, store, dataset, seed)}


def _on_training_features(model: Classifier, store: FeatureStore, dataset: ImageDataset, seed: int) -> dict[str, float | None]:
    rows = store.rows(train=True)
    vectors, labels = feature_vectors(model, store, rows), store.labels[rows].numpy()
    weight = model.class_weight.detach().cpu().numpy()
    attributes, classes = dataset.image_attributes, dataset.class_attributes
    values: dict[str, Any] = {
        "class_independence": measure.class_independence(vectors, labels),
        "contrastiveness": measure.contrastiveness(vectors, seed),
        "correlation": measure.correlation(vectors),
        "structural_grounding": None if classes is None else measure.structural_grounding(np.abs(weight), classes),
        "attribute_alignment": None if attributes is None else measure.attribute_alignment(vectors, attributes[rows.numpy()]),
    }
    return {name: None if value is None or math.isnan(value) else float(value) for name, value in values.items()}
