"""Explanations of single predictions, all with one contract: (images, targets) -> maps (B, g, g)."""

from qpm_lib.explain.base import ExplanationMethod
from qpm_lib.explain.intrinsic import ClassMapExplanation, Comparison, IntrinsicExplanation, compare_classes

__all__ = ["ClassMapExplanation", "Comparison", "ExplanationMethod", "IntrinsicExplanation", "compare_classes"]
