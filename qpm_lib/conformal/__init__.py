"""How sure, and what is still possible: the hierarchy of classes of one picture, and sets that keep a promise."""

from qpm_lib.conformal.baselines import SoftmaxSets
from qpm_lib.conformal.hierarchy import Hierarchy, hierarchy, path_scores
from qpm_lib.conformal.quantile import conformal_quantile, coverage_interval, mean_coverage_interval, smallest_alpha
from qpm_lib.conformal.sets import Calibration, HierarchicalSets, Rule, Split

__all__ = [
    "Calibration",
    "Hierarchy",
    "HierarchicalSets",
    "Rule",
    "SoftmaxSets",
    "Split",
    "conformal_quantile",
    "coverage_interval",
    "hierarchy",
    "mean_coverage_interval",
    "path_scores",
    "smallest_alpha",
]
