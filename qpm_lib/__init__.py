"""Interpretable image classification on frozen vision transformers: DINO-QPM as a course and a tool."""

from qpm_lib import explain, metrics, selection
from qpm_lib.adapter import DenseModel, LinearProbe
from qpm_lib.backbones import FrozenBackbone, load_backbone
from qpm_lib.config import RunConfig, load_profile
from qpm_lib.data import ImageDataset, load_dataset, load_scenes
from qpm_lib.features import FeatureStore
from qpm_lib.model import DinoQPM
from qpm_lib.runs import RunFolder, open_run
from qpm_lib.seeding import seed_everything
from qpm_lib.tradeoff import trade_off
from qpm_lib.training import fine_tune, train_dense, train_linear_probe

__version__ = "0.1.0"
__all__ = [
    "DenseModel", "DinoQPM", "FeatureStore", "FrozenBackbone", "ImageDataset", "LinearProbe", "RunConfig", "RunFolder", "explain", "fine_tune",
    "load_backbone", "load_dataset", "load_profile", "load_scenes", "metrics", "open_run", "seed_everything", "selection",
    "trade_off", "train_dense", "train_linear_probe",
]  # fmt: skip
