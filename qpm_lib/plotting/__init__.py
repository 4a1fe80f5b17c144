"""Drawing: arrays in, pictures and figures out. Knows nothing of models."""

from qpm_lib.plotting.canvas import Canvas, framed, place_in_words, to_jpeg
from qpm_lib.plotting.colours import PALETTE, cluster_colours, feature_colours
from qpm_lib.plotting.course import you_are_here
from qpm_lib.plotting.curves import LiveSolve, solve_progress, trade_off_curve, trade_off_curves, training_curves
from qpm_lib.plotting.figures import (
    bars_with_reference,
    class_feature_matrix,
    class_order,
    confusion_matrix,
    contribution_bars,
    new_figure,
    skill_chart,
    skill_table,
)
from qpm_lib.plotting.maps import (
    combined_overlay,
    label_overlay,
    outlined,
    overlay,
    show_images,
    show_maps,
    signed_overlay,
    token_colours,
    upsample,
)
from qpm_lib.plotting.tree import class_tree

__all__ = [
    "Canvas",
    "LiveSolve",
    "PALETTE",
    "bars_with_reference",
    "class_feature_matrix",
    "class_order",
    "class_tree",
    "cluster_colours",
    "combined_overlay",
    "confusion_matrix",
    "contribution_bars",
    "feature_colours",
    "framed",
    "label_overlay",
    "new_figure",
    "outlined",
    "overlay",
    "place_in_words",
    "show_images",
    "show_maps",
    "signed_overlay",
    "skill_chart",
    "skill_table",
    "solve_progress",
    "to_jpeg",
    "token_colours",
    "trade_off_curve",
    "trade_off_curves",
    "training_curves",
    "upsample",
    "you_are_here",
]
