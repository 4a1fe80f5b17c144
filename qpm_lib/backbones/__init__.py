"""Frozen backbones by name: pictures in, patch tokens and the CLS token out."""

from qpm_lib.backbones.frozen import FrozenBackbone, Tokens, check_backbone, load_backbone, random_backbone
from qpm_lib.backbones.preprocessing import Preprocessing
from qpm_lib.backbones.pretraining import PretrainingConfig, patch_parts, pretrain
from qpm_lib.backbones.registry import BACKBONES
from qpm_lib.backbones.taps import locate, tapped
from qpm_lib.backbones.torchvision import import_torchvision
from qpm_lib.backbones.toy_vit import TOY_WEIGHTS, build_toy_vit, save_weights
from qpm_lib.backbones.weights import state_hash, weights_at_hand

__all__ = [
    "BACKBONES",
    "FrozenBackbone",
    "Preprocessing",
    "PretrainingConfig",
    "TOY_WEIGHTS",
    "Tokens",
    "build_toy_vit",
    "check_backbone",
    "import_torchvision",
    "load_backbone",
    "locate",
    "patch_parts",
    "pretrain",
    "random_backbone",
    "save_weights",
    "state_hash",
    "tapped",
    "weights_at_hand",
]
