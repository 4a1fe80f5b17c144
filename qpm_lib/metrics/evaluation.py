"""All measures of one model on one feature store, streamed batch by batch. The names in `MEASURES` are the columns of
every table; a measure that is no share also stands in `_PLAIN` of `runs/formats.py`.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from qpm_lib.data import ImageDataset
from qpm_lib.explain import centred_blob
from qpm_lib.features import FeatureStore
from qpm_lib.metrics import features, maps
from qpm_lib.model import Classifier, feature_vectors, outputs

MEASURES = {
    "accuracy": "accuracy (test)",
    "plausibility": "plausibility (test)",
    "plausibility_chance": "plausibility of a uniform map",
    "plausibility_centre": "plausibility of a centred blob",
    "pointing": "strongest patch on the object (test)",
    "pointing_centre": "strongest patch of a centred blob",
    "sid": "SID@k (test)",
    "class_independence": "class-independence (train)",
    "contrastiveness": "contrastiveness (train)",
    "correlation": "correlation (train)",
    "structural_grounding": "structural grounding",
    "attribute_alignment": "attribute alignment (train)",
}
_UNINFORMED = ("plausibility_chance", "plausibility_centre", "pointing_centre")
_ON_MASKS = ("plausibility", "pointing", *_UNINFORMED)


def _stack_masks(dataset: ImageDataset, rows: list[int], grid: int, *, crop: bool) -> Bool[Tensor, "images g g"]:
    """Masks of any size, each cut to the central square where pictures are, and brought to the patch grid."""
    masks = [torch.as_tensor(dataset.mask(row)) for row in rows]
    if crop:
        sides = [min(mask.shape) for mask in masks]
        masks = [m[(m.shape[0] - s) // 2 :, (m.shape[1] - s) // 2 :][:s, :s] for m, s in zip(masks, sides, strict=True)]
    return torch.stack([maps.grid_masks(mask[None], grid, dilate=False)[0] > 0 for mask in masks])


@dataclass(frozen=True)
class Evaluation:
    """Measures of one model.

    Attributes
    ----------
    values : by the names of `MEASURES`; None where a measure is not defined. intervals : 95 % bootstrap intervals over
    test pictures, for measures that are means over them. notes : why a value is None.
    """

    values: dict[str, float | None]
    intervals: dict[str, tuple[float, float]]
    notes: dict[str, str]


def bootstrap_interval(values: Float[np.ndarray, "images"], *, seed: int = 0) -> tuple[float, float]:
    """95 % percentile bootstrap interval of a mean (Efron 1979), 2000 resamples; a single value is its own interval."""
    from scipy.stats import bootstrap

    if len(values) < 2 or np.ptp(values) == 0:
        return float(values.mean()), float(values.mean())
    rng = np.random.default_rng([seed, 41])
    options = {"n_resamples": 2000, "batch": 100, "method": "percentile", "random_state": rng}
    interval = bootstrap((values,), np.mean, **options).confidence_interval
    return float(interval.low), float(interval.high)


def evaluate(model: Classifier, store: FeatureStore, dataset: ImageDataset, *, k: int = 5, seed: int = 0) -> Evaluation:
    """All measures of a model: accuracy and those of maps on the test split, those of features on the training split.

    Nothing is chosen here. Where the data set lacks masks or attributes, or a measure is not defined for this model,
    the value is None and a note says why; it is never NaN.

    Parameters
    ----------
    k : features per picture for SID. Maps are read batch by batch, so memory does not grow with the data set.

    Raises
    ------
    ValueError : when there are no test pictures.
    """
    if not len(store.rows(train=False)):
        raise ValueError("the test split is empty: accuracy needs at least one picture")
    per_image, notes = _on_test_pictures(model, store, dataset, k), {}
    per_image["sid"] = per_image["sid"][~np.isnan(per_image["sid"])]
    values: dict[str, float | None] = {name: float(v.mean()) if len(v) else None for name, v in per_image.items()}
    intervals = {
        name: bootstrap_interval(v, seed=seed) for name, v in per_image.items() if len(v) and name not in _UNINFORMED
    }
    values = dict.fromkeys(MEASURES) | values
    if values["sid"] is None:
        notes["sid"] = f"no predicted class has {k} features"
    if dataset.masks is None:
        notes |= dict.fromkeys(_ON_MASKS, "the data set has no segmentations")
    on_features, why = _on_training_features(model, store, dataset, seed)
    values = {name: on_features.get(name, values[name]) for name in MEASURES}
    return Evaluation(
        values, intervals, {name: note for name, note in {**notes, **why}.items() if values[name] is None}
    )


def _on_test_pictures(
    model: Classifier, store: FeatureStore, dataset: ImageDataset, k: int
) -> dict[str, Float[np.ndarray, "images"]]:
    rows, done = store.rows(train=False), 0
    found: dict[str, list[Tensor]] = {name: [] for name in ("accuracy", "sid", *_ON_MASKS)}
    blob = torch.from_numpy(centred_blob(store.grid))[None, None]
    weight = model.class_weight.detach()
    for out, labels in outputs(model, store, rows):
        predicted = out.logits.argmax(1)
        found["accuracy"].append((predicted == labels).float())
        found["sid"].append(maps.sid_per_image(out.maps, weight, predicted, k))
        if dataset.masks is not None:
            masks = _stack_masks(
                dataset,
                rows[done : done + len(labels)].tolist(),
                store.grid,
                crop=store.backbone_fingerprint.get("aspect") == "crop",
            )
            score, chance = maps.plausibility_per_image(out.maps, weight, predicted, masks)
            found["plausibility"].append(score)
            found["plausibility_chance"].append(chance)
            found["pointing"].append(maps.pointing_per_image(out.maps, weight, predicted, masks))
            centre = blob.expand(len(masks), 1, -1, -1), torch.ones(1, 1), torch.zeros(len(masks), dtype=torch.long)
            found["plausibility_centre"].append(maps.plausibility_per_image(*centre, masks)[0])
            found["pointing_centre"].append(maps.pointing_per_image(*centre, masks))
        done += len(labels)
    return {name: torch.cat(parts).cpu().double().numpy() for name, parts in found.items() if parts}


def _on_training_features(
    model: Classifier, store: FeatureStore, dataset: ImageDataset, seed: int
) -> tuple[dict[str, float | None], dict[str, str]]:
    rows = store.rows(train=True)
    vectors, labels = feature_vectors(model, store, rows), store.labels[rows].numpy()
    weight = model.class_weight.detach().cpu().numpy()
    attributes, classes = dataset.image_attributes, dataset.class_attributes
    values: dict[str, float | None] = {
        "class_independence": features.class_independence(vectors, labels),
        "contrastiveness": features.contrastiveness(vectors, seed),
        "correlation": features.correlation(vectors),
    }
    notes = {"class_independence": "all features are constant", "correlation": "there is one feature only"}
    if classes is None or not weight.any(1).all() or not classes.any(1).all():
        bare = np.flatnonzero(~weight.any(1))
        values["structural_grounding"] = None
        reason = f"class {dataset.class_names[bare[0]]} has no features" if len(bare) else "a class has no attributes"
        notes["structural_grounding"] = "the data set has no class attributes" if classes is None else reason
    else:
        values["structural_grounding"] = features.structural_grounding(weight, classes)
        notes["structural_grounding"] = "no two classes have an attribute in common"
    values["attribute_alignment"] = (
        None if attributes is None else features.attribute_alignment(vectors, attributes[rows.numpy()])
    )
    notes["attribute_alignment"] = (
        "the data set has no attributes per picture" if attributes is None else "no attribute varies"
    )
    return {name: None if value is None or math.isnan(value) else float(value) for name, value in values.items()}, notes
