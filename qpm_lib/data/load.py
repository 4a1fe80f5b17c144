"""From the settings to a data set."""

from dataclasses import asdict
from functools import partial
from pathlib import Path

from filelock import FileLock

from qpm_lib.core import DataConfig, cache_folder, content_hash
from qpm_lib.data.aircraft import read_aircraft
from qpm_lib.data.cars import read_cars
from qpm_lib.data.cub import read_cub
from qpm_lib.data.dataset import ImageDataset, without_damaged
from qpm_lib.data.folder import read_folder, read_manifest
from qpm_lib.data.toy.scenes import write_toybirds

_RENDERER_VERSION = 1


def _toybirds_root(config: DataConfig) -> Path:
    """The rendered data set of a configuration, made on first use."""
    recipe = {
        k: v for k, v in asdict(config).items() if k in ("n_species", "train_per_class", "test_per_class", "seed")
    }
    root = (
        Path(config.root)
        if config.root
        else cache_folder() / f"toybirds-{content_hash({**recipe, 'version': _RENDERER_VERSION})}"
    )
    root.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{root}.lock"):
        if not (root / "images.txt").exists():
            if root.exists() and any(root.iterdir()):
                raise ValueError(
                    f"data.root (={str(root)!r}) exists and holds no toy birds: choose an empty or new folder"
                )
            write_toybirds(root, **recipe)
    return root


def load_dataset(config: DataConfig) -> ImageDataset:
    """Read the pictures that a configuration names; toy birds are rendered first where they are not there yet.

    Raises
    ------
    ValueError : for a missing root, missing or inconsistent files, or a class without pictures.
    """
    if config.kind != "toybirds" and not config.root:
        raise ValueError(
            f"data.root is empty: name the folder of the pictures, for example --set data.root=pictures (data.kind={config.kind})"
        )
    if config.kind == "toybirds" and config.crop:
        raise ValueError("data.crop=true does not go with data.kind=toybirds: their checks draw whole pictures")
    root = _toybirds_root(config) if config.kind == "toybirds" else Path(config.root)
    split = {"test_share": config.test_share, "seed": config.seed}
    readers = {
        "cars": read_cars,
        "aircraft": read_aircraft,
        "folder": partial(read_folder, **split),
        "csv": partial(read_manifest, **split),
    }
    dataset = readers.get(config.kind, read_cub)(root)
    dataset = dataset.crop_to_boxes() if config.crop else dataset
    return without_damaged(dataset) if config.skip_damaged else dataset
