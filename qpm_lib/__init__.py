"""Interpretable image classification on frozen vision transformers: DINO-QPM as a course and a tool.

The rooms are the steps of the method, in order, and each uses only those before it: `core` and `plotting` (for all),
`data`, `backbones`, `features`, `selection`, `model`, `explain`, `metrics`, `runs`, `report`, `explorer`;
`estimator` is the face for scikit-learn, `cli` the `qpm` command.
"""

from qpm_lib import explain, metrics, selection
from qpm_lib.backbones import FrozenBackbone, load_backbone
from qpm_lib.core import VERSION, RunConfig, load_profile, seed_everything
from qpm_lib.data import ImageDataset, load_dataset, load_scenes
from qpm_lib.features import FeatureStore
from qpm_lib.metrics import trade_off
from qpm_lib.model import DenseModel, DinoQPM, LinearProbe, fine_tune, train_dense, train_linear_probe
from qpm_lib.runs import RunFolder, open_run

__version__ = VERSION
__all__ = [
    "DenseModel",
    "DinoQPM",
    "FeatureStore",
    "FrozenBackbone",
    "ImageDataset",
    "LinearProbe",
    "RunConfig",
    "RunFolder",
    "explain",
    "fine_tune",
    "load_backbone",
    "load_dataset",
    "load_profile",
    "load_scenes",
    "metrics",
    "open_run",
    "seed_everything",
    "selection",
    "trade_off",
    "train_dense",
    "train_linear_probe",
]
