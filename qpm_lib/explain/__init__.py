"""Explanations of single predictions, all with one contract: (images, targets) -> maps (B, g, g)."""

from qpm_lib.explain.attention import AttentionMap, LeGrad, RelevancePropagation, Rollout
from qpm_lib.explain.attn_lrp import AttnLRP
from qpm_lib.explain.base import ExplanationMethod, Method
from qpm_lib.explain.cdam import CDAM, IntegratedCDAM, SmoothCDAM
from qpm_lib.explain.clusters import Axes, Clusters, lloyd
from qpm_lib.explain.descriptors import ARTEFACT, Described
from qpm_lib.explain.gradients import GradCAM, IntegratedGradients
from qpm_lib.explain.inspection import Inspection, inspect_pictures, patch_panel
from qpm_lib.explain.inspection_figures import cluster_sheet, contact_sheet, marked_sheet
from qpm_lib.explain.intrinsic import ClassActivationMap, Comparison, IntrinsicExplanation, compare_classes
from qpm_lib.explain.nave import NAVE, SharedClusters
from qpm_lib.explain.perturbation import RISE, TokenAblation
from qpm_lib.explain.pictures import ExplainedPicture, explain_files, map_figure, map_panels
from qpm_lib.explain.pixels import sharpen
from qpm_lib.explain.ranking import (
    LearnedRanking,
    embedded_start,
    hard_areas,
    removed,
    save_start,
    soft_sort,
    train_ranking,
)
from qpm_lib.explain.registry import METHODS, MethodEntry, make, possible, quick_methods
from qpm_lib.explain.target import Rest, Target, concept_target
from qpm_lib.explain.uninformed import CentredBlob, EdgeMap, RandomMap, centred_blob

__all__ = [
    "ARTEFACT",
    "AttentionMap",
    "AttnLRP",
    "Axes",
    "CDAM",
    "CentredBlob",
    "ClassActivationMap",
    "Clusters",
    "Comparison",
    "Described",
    "EdgeMap",
    "ExplainedPicture",
    "ExplanationMethod",
    "GradCAM",
    "Inspection",
    "IntegratedCDAM",
    "IntegratedGradients",
    "IntrinsicExplanation",
    "LeGrad",
    "LearnedRanking",
    "METHODS",
    "Method",
    "MethodEntry",
    "NAVE",
    "RISE",
    "RandomMap",
    "RelevancePropagation",
    "Rest",
    "Rollout",
    "SharedClusters",
    "SmoothCDAM",
    "Target",
    "TokenAblation",
    "centred_blob",
    "cluster_sheet",
    "compare_classes",
    "concept_target",
    "contact_sheet",
    "embedded_start",
    "explain_files",
    "hard_areas",
    "inspect_pictures",
    "lloyd",
    "make",
    "map_figure",
    "map_panels",
    "marked_sheet",
    "patch_panel",
    "possible",
    "quick_methods",
    "removed",
    "save_start",
    "sharpen",
    "soft_sort",
    "train_ranking",
]
