"""Measures of models and of their explanations."""

from qpm_lib.metrics.classification import accuracy, confusion
from qpm_lib.metrics.evaluation import MEASURES, evaluate
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
    "MEASURES", "accuracy", "attribute_alignment", "class_independence", "confusion", "contrastiveness", "correlation", "evaluate",
    "grid_masks", "plausibility", "pointing", "sid", "structural_grounding",
]  # fmt: skip
