"""From tokens to a classifier that explains itself: adapter, dense model, losses, training, `DinoQPM`, its folder."""

from qpm_lib.model.adapter import Output
from qpm_lib.model.answer_figure import heat_map_figure, save_heat_map
from qpm_lib.model.calibrated import (
    calibrate,
    calibration_rows,
    load_calibration,
    save_calibration,
    strengths,
    supported_confidences,
    supported_rule,
)
from qpm_lib.model.card import describe_model
from qpm_lib.model.dense import DenseModel, LinearProbe
from qpm_lib.model.files import load_module, save_module
from qpm_lib.model.head import FixedHead
from qpm_lib.model.hub import model_folder
from qpm_lib.model.losses import diversity_loss, grounding_loss
from qpm_lib.model.network import Explanation
from qpm_lib.model.outputs import (
    Classifier,
    accuracy,
    correct_rows,
    feature_vectors,
    map_locality,
    most_activating,
    outputs,
    outputs_of,
)
from qpm_lib.model.predict import Skipped, attach_backbone, find_pictures, peak_position, predict_files
from qpm_lib.model.qpm import DinoQPM
from qpm_lib.model.stages import fine_tune, train_dense, train_linear_probe

__all__ = [
    "Classifier",
    "DenseModel",
    "DinoQPM",
    "Explanation",
    "FixedHead",
    "LinearProbe",
    "Output",
    "Skipped",
    "accuracy",
    "attach_backbone",
    "calibrate",
    "calibration_rows",
    "correct_rows",
    "describe_model",
    "diversity_loss",
    "feature_vectors",
    "find_pictures",
    "fine_tune",
    "grounding_loss",
    "heat_map_figure",
    "load_calibration",
    "load_module",
    "map_locality",
    "model_folder",
    "most_activating",
    "outputs",
    "outputs_of",
    "peak_position",
    "predict_files",
    "save_calibration",
    "save_heat_map",
    "save_module",
    "strengths",
    "supported_confidences",
    "supported_rule",
    "train_dense",
    "train_linear_probe",
]
