"""Measures of models and of their explanations."""

from qpm_lib.metrics.classification import accuracy, confusion
from qpm_lib.metrics.evaluation import MEASURES, Evaluation, bootstrap_interval, evaluate
from qpm_lib.metrics.exact_answers import SUBSETS, ExactParts, exact_parts, interactions, shapley
from qpm_lib.metrics.faithfulness import (
    BoxEffects,
    box_effects,
    box_sensitivity,
    class_sensitivity,
    compactness,
    curve_gap,
    deletion,
    insertion,
    map_correlation,
)
from qpm_lib.metrics.features import (
    attribute_alignment,
    class_independence,
    contrastiveness,
    correlation,
    structural_grounding,
)
from qpm_lib.metrics.ground_truth import PictureTruth, maps_for, part_checks, picture_truths, twin
from qpm_lib.metrics.locality import Locality, blurred, feature_locality, marked_patches
from qpm_lib.metrics.maps import grid_masks, plausibility, pointing, sid
from qpm_lib.metrics.naming import propose_names, squared_correlation
from qpm_lib.metrics.paired import Difference, Estimate, Scores, agreement_over_methods, differences, mean_score
from qpm_lib.metrics.part_removal import part_deletion
from qpm_lib.metrics.parts import VARIED, paint, part_importance, read_out
from qpm_lib.metrics.purity import Purity, feature_purity
from qpm_lib.metrics.removal import FILLS, Curves, removal_curves
from qpm_lib.metrics.sanity import Randomised, randomisation_check, structural_similarity
from qpm_lib.metrics.segmentation import (
    Agreement,
    Exclusive,
    cluster_shares,
    exclusive_clusters,
    features_in_clusters,
    localised,
    part_agreement,
    region_iou,
    stability,
)
from qpm_lib.metrics.sets import SetQuality, attribute_similarity, set_coherence, set_quality
from qpm_lib.metrics.skill import CHECKS, PartChecks, Skill, skill_rows
from qpm_lib.metrics.trade_off import trade_off
from qpm_lib.metrics.twins import TwinSplit, twin_splits

__all__ = [
    "Agreement",
    "BoxEffects",
    "CHECKS",
    "Curves",
    "Difference",
    "Estimate",
    "Evaluation",
    "ExactParts",
    "Exclusive",
    "FILLS",
    "Locality",
    "MEASURES",
    "PartChecks",
    "PictureTruth",
    "Purity",
    "Randomised",
    "SUBSETS",
    "Scores",
    "SetQuality",
    "Skill",
    "TwinSplit",
    "VARIED",
    "accuracy",
    "agreement_over_methods",
    "attribute_alignment",
    "attribute_similarity",
    "blurred",
    "bootstrap_interval",
    "box_effects",
    "box_sensitivity",
    "class_independence",
    "class_sensitivity",
    "cluster_shares",
    "compactness",
    "confusion",
    "contrastiveness",
    "correlation",
    "curve_gap",
    "deletion",
    "differences",
    "evaluate",
    "exact_parts",
    "exclusive_clusters",
    "feature_locality",
    "feature_purity",
    "features_in_clusters",
    "grid_masks",
    "insertion",
    "interactions",
    "localised",
    "map_correlation",
    "maps_for",
    "marked_patches",
    "mean_score",
    "paint",
    "part_agreement",
    "part_checks",
    "part_deletion",
    "part_importance",
    "picture_truths",
    "plausibility",
    "pointing",
    "propose_names",
    "randomisation_check",
    "read_out",
    "region_iou",
    "removal_curves",
    "set_coherence",
    "set_quality",
    "shapley",
    "sid",
    "skill_rows",
    "squared_correlation",
    "stability",
    "structural_grounding",
    "structural_similarity",
    "trade_off",
    "twin",
    "twin_splits",
]
