"""Measures of models and of their explanations."""

from qpm_lib.metrics.classification import accuracy, confusion
from qpm_lib.metrics.evaluation import MEASURES, Evaluation, bootstrap_interval, evaluate
from qpm_lib.metrics.ground_truth import PartChecks, Purity, feature_purity, part_checks, part_importance
from qpm_lib.metrics.interpretability import (
    attribute_alignment,
    class_independence,
    contrastiveness,
    correlation,
    grid_masks,
    plausibility,
    pointing,
    sid,
    structural_grounding,
)

__all__ = [
    "MEASURES", "Evaluation", "PartChecks", "Purity", "accuracy", "attribute_alignment", "bootstrap_interval", "class_independence",
    "confusion", "contrastiveness", "correlation", "evaluate", "feature_purity", "grid_masks", "part_checks", "part_importance",
    "plausibility", "pointing", "sid", "structural_grounding",
]  # fmt: skip
