"""Sets of classes that a finished model promises: calibrated on pictures it was not trained on, kept in its folder."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from qpm_lib.conformal import Calibration, HierarchicalSets, Rule, Split
from qpm_lib.core import file_hash, save_arrays, saved_arrays, without_nan
from qpm_lib.features import FeatureStore
from qpm_lib.model.outputs import outputs
from qpm_lib.model.qpm import DinoQPM

NAME = "calibration"
_SCORE = "path, then share of strength"  # scores of another kind are not compared with these
_CONFIDENCES = (0.88, 0.9, 0.925, 0.95, 0.975, 0.99)


def calibration_rows(
    labels: Int[Tensor, "rows"], rows: Int[Tensor, "held_out"], *, per_class: int = 10, seed: int = 0
) -> tuple[Int[Tensor, "m"], Int[Tensor, "rest"]]:
    """Split pictures that were held out: some of every class to calibrate with, the rest to test with.

    Published: the first 10 test pictures of every class (CHiQPM, arXiv 2511.20779). Here they are drawn, and never more
    than half of a class [ours]; a class with a single picture keeps it for the test.

    Raises
    ------
    ValueError : when no class has two pictures.
    """
    g, chosen = torch.Generator().manual_seed(seed), []
    for c in labels[rows].unique().tolist():
        own = rows[labels[rows] == c]
        chosen.append(own[torch.randperm(len(own), generator=g)[: min(per_class, len(own) // 2)]])
    first = torch.cat(chosen).sort().values if chosen else rows[:0]
    if not len(first):
        raise ValueError(
            "no class has two test pictures: one calibrates, the other tests; add pictures, or a larger data.test_share"
        )
    return first, rows[~torch.isin(rows, first)]


def strengths(
    model: DinoQPM, store: FeatureStore, rows: Int[Tensor, "rows"]
) -> tuple[Float[Tensor, "rows n"], Float[Tensor, "rows classes"]]:
    """What each feature adds to a score per unit of weight (f / std), and the logits, of some pictures.

    Features are ordered by this strength, so that the path of a picture is that of the terms of its score [ours: the
    release sorts the features themselves].
    """
    parts = [
        (model.head.strength(out.vector).detach().cpu(), out.logits.cpu()) for out, _ in outputs(model, store, rows)
    ]
    return torch.cat([vector for vector, _ in parts]), torch.cat([logits for _, logits in parts])


def calibrate(
    model: DinoQPM, store: FeatureStore, rows: Int[Tensor, "m"], *, split: Split = "strict", seed: int = 0
) -> HierarchicalSets:
    """Sets along the hierarchy, calibrated on some pictures of a store.

    Raises
    ------
    ValueError : for a class layer that is not binary, or fewer than two pictures.
    """
    sets = HierarchicalSets(model.class_weight.detach().cpu(), split=split, seed=seed)
    return sets.fit(*strengths(model, store, rows), store.labels[rows].cpu())


def save_calibration(folder: Path, sets: HierarchicalSets, pictures: Sequence[str]) -> None:
    """Write what was calibrated into a model folder, with the names of the pictures and the hash of the weights."""
    kept = sets.calibration
    if kept is None:
        raise ValueError("these sets are not calibrated: call fit first")
    rules = {f"{confidence:g}": sets.rule(1 - confidence)._asdict() for confidence in _CONFIDENCES}
    made_for = file_hash(folder / "model.safetensors")
    card = {"model": made_for, "score": _SCORE, "split": sets.split, "confidences": without_nan(rules)}
    arrays = {name: tensor.numpy() for name, tensor in kept._asdict().items()}
    save_arrays(folder, NAME, arrays, {**card, "pictures": list(pictures)})


def load_calibration(folder: Path, model: DinoQPM) -> HierarchicalSets:
    """The sets that a model folder promises.

    Raises
    ------
    ValueError : when its class layer is not binary, it was never calibrated (says how), or the files are damaged or of
        another model.
    """
    sets = HierarchicalSets(model.class_weight.detach().cpu())
    if not (folder / f"{NAME}.json").exists():
        raise ValueError(
            f"{folder} is not calibrated, so that it cannot promise a confidence: `qpm run` without --to, or with "
            "--to 13, does it with test pictures that it sets aside"
        )
    with saved_arrays(folder, NAME, what="calibration", chapter="13") as (arrays, card):
        kept = Calibration(*(torch.as_tensor(arrays[name]) for name in Calibration._fields))
        m, levels = kept.scores.shape
        if kept.depth.shape != (m,) or kept.for_level.shape != (m,) or levels != model.n_per_class + 1:
            raise ValueError("it does not fit the model")
        sets.split, made_for, score = card["split"], card["model"], card.get("score")
    if score != _SCORE:
        raise ValueError(f"{folder} was calibrated by another version of this program: run chapter 13 again")
    if made_for != file_hash(folder / "model.safetensors"):
        raise ValueError(f"{folder} was calibrated for another model: run chapter 13 again")
    sets.calibration = kept
    return sets


def supported_confidences(sets: HierarchicalSets) -> list[float]:
    """Those of a grid, from 0.88 to 0.99, that the number of calibration pictures supports."""
    return [confidence for confidence in _CONFIDENCES if np.isfinite(sets.rule(1 - confidence).quantile)]


def supported_rule(sets: HierarchicalSets, confidence: float) -> Rule:
    """The rule for a confidence.

    Raises
    ------
    ValueError : for a confidence outside (0, 1), or one that the number of calibration pictures does not support.
    """
    if not 0 < confidence < 1:
        raise ValueError(f"confidence (={confidence:g}) must lie between 0 and 1, for example 0.9")
    rule = sets.rule(1 - confidence)
    if not np.isfinite(rule.quantile):
        raise ValueError(
            f"confidence (={confidence:g}) is beyond what {rule.count} calibration pictures support: at most "
            f"{rule.count / (rule.count + 1):.4g}"
        )
    return rule
