"""What the chapters of a run start from: its pictures, its frozen backbone, its features."""

import math

from qpm_lib.backbones import FrozenBackbone, load_backbone
from qpm_lib.core import RunConfig, choose_device
from qpm_lib.data import ImageDataset, load_dataset
from qpm_lib.features import FeatureStore, LiveFeatures


def load_run_dataset(config: RunConfig) -> ImageDataset:
    """The pictures of a run.

    Raises
    ------
    ValueError : when they cannot be read, or there are more classes than different sets of features.
    """
    dataset, wanted = load_dataset(config.data), config.selection
    sets = math.comb(wanted.n_features, wanted.n_per_class)
    if wanted.method == "qpm" and len(dataset.class_names) > sets:
        raise ValueError(
            f"{len(dataset.class_names)} classes cannot have different sets of "
            f"selection.n_per_class (={wanted.n_per_class}) out of selection.n_features (={wanted.n_features}): "
            f"there are only {sets}; raise selection.n_features"
        )
    return dataset


def load_run_backbone(config: RunConfig) -> FrozenBackbone:
    """The frozen backbone of a run, on its device."""
    settings = config.backbone
    return load_backbone(
        settings.name,
        weights=settings.weights or None,
        image_size=settings.image_size,
        device=config.device,
        aspect=settings.aspect,
    )


def load_run_features(config: RunConfig, dataset: ImageDataset, backbone: FrozenBackbone) -> FeatureStore:
    """The features of a run on its device: extracted on first use, or made live where the settings ask for it."""
    settings, augment, device = config.features, config.data.augment, choose_device(config.device)
    if settings.live or augment != "none":
        return LiveFeatures(dataset, backbone, augment=augment, workers=settings.workers).to(device)
    options = {name: getattr(settings, name) for name in ("batch_size", "shard_size", "workers")}
    return FeatureStore.extract(dataset, backbone, **options).to(device)
