"""Explanations of single predictions, all with one contract: (images, targets) -> maps (B, g, g)."""

from qpm_lib.explain.base import ExplanationMethod
from qpm_lib.explain.intrinsic import ClassMapExplanation, Comparison, IntrinsicExplanation, compare_classes
from qpm_lib.explain.uninformed import CentredBlob, RandomMap

__all__ = [
    "CentredBlob",
    "ClassMapExplanation",
    "Comparison",
    "ExplanationMethod",
    "IntrinsicExplanation",
    "RandomMap",
    "compare_classes",
]
