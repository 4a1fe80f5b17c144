"""Measures of models and of their explanations."""

from qpm_lib.metrics.classification import accuracy, confusion
from qpm_lib.metrics.evaluation import MEASURES, Evaluation, bootstrap_interval, evaluate
from qpm_lib.metrics.features import (
    attribute_alignment,
    class_independence,
    contrastiveness,
    correlation,
    structural_grounding,
)
from qpm_lib.metrics.ground_truth import PartChecks, part_checks, part_importance
from qpm_lib.metrics.maps import grid_masks, plausibility, pointing, sid
from qpm_lib.metrics.purity import Purity, feature_purity
from qpm_lib.metrics.remember import remembered
from qpm_lib.metrics.trade_off import trade_off

__all__ = [
    "Evaluation",
    "MEASURES",
    "PartChecks",
    "Purity",
    "accuracy",
    "attribute_alignment",
    "bootstrap_interval",
    "class_independence",
    "confusion",
    "contrastiveness",
    "correlation",
    "evaluate",
    "feature_purity",
    "grid_masks",
    "part_checks",
    "part_importance",
    "plausibility",
    "pointing",
    "remembered",
    "sid",
    "structural_grounding",
    "trade_off",
]
