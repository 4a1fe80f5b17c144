"""What the chapters of a run start from: its pictures, its frozen backbone, its features."""

import math

from qpm_lib.backbones import FrozenBackbone, check_backbone, load_backbone
from qpm_lib.core import RunConfig, cache_folder, choose_device, make_cache_folder
from qpm_lib.data import ImageDataset, find_dataset, load_dataset
from qpm_lib.features import FeatureStore, LiveFeatures


def load_run_dataset(config: RunConfig) -> ImageDataset:
    """The pictures of a run.

    Raises
    ------
    ValueError : when they cannot be read, or there are more classes than different sets of features.
    """
    dataset = load_dataset(config.data)
    _check_sets(config, len(dataset.class_names))
    return dataset


def check_inputs(config: RunConfig) -> None:
    """Find in a moment what would stop the first chapter: nothing is rendered, no picture opened, no backbone loaded.

    Raises
    ------
    ValueError : for pictures that are not there, lists that contradict themselves, an unknown backbone or weights that
        are missing, more classes than different sets of features, and a cache folder that cannot be written.
    """
    dataset, backbone = find_dataset(config.data), config.backbone
    _check_sets(config, config.data.n_species if dataset is None else len(dataset.class_names))
    size = {"image_size": backbone.image_size, "depth": backbone.depth}
    check_backbone(backbone.name, weights=backbone.weights or None, **size)
    _check_cache()


def _check_sets(config: RunConfig, n_classes: int) -> None:
    wanted = config.selection
    sets = math.comb(wanted.n_features, wanted.n_per_class)
    if wanted.method == "qpm" and n_classes > sets:
        raise ValueError(
            f"{n_classes} classes cannot have different sets of selection.n_per_class (={wanted.n_per_class}) out of "
            f"selection.n_features (={wanted.n_features}): there are only {sets}; raise selection.n_features"
        )


def _check_cache() -> None:
    try:
        make_cache_folder()
    except OSError as error:
        raise ValueError(
            f"cache folder {cache_folder()} cannot be written ({error.strerror}): set QPM_CACHE to one that can"
        ) from error


def load_run_backbone(config: RunConfig) -> FrozenBackbone:
    """The frozen backbone of a run, on its device."""
    settings = config.backbone
    return load_backbone(
        settings.name,
        weights=settings.weights or None,
        image_size=settings.image_size,
        device=config.device,
        aspect=settings.aspect,
        depth=settings.depth,
    )


def load_run_features(config: RunConfig, dataset: ImageDataset, backbone: FrozenBackbone) -> FeatureStore:
    """The features of a run on its device: extracted on first use, or made live where the settings ask for it."""
    settings, augment, device = config.features, config.data.augment, choose_device(config.device)
    if settings.live or augment != "none":
        return LiveFeatures(dataset, backbone, augment=augment, workers=settings.workers).to(device)
    options = {name: getattr(settings, name) for name in ("batch_size", "shard_size", "workers")}
    return FeatureStore.extract(dataset, backbone, **options).to(device)
