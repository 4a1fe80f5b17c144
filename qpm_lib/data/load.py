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
from qpm_lib.data.toy.species import make_species

_RENDERER_VERSION = 1


def load_dataset(config: DataConfig) -> ImageDataset:
    """Read the pictures that a configuration names; toy birds are rendered first where they are not there yet.

    Raises
    ------
    ValueError : for a missing root, missing or inconsistent files, or a class without pictures.
    """
    _check(config)
    if config.kind == "toybirds":
        _render(config)
    dataset = _read(config)
    return without_damaged(dataset) if config.skip_damaged else dataset


def find_dataset(config: DataConfig) -> ImageDataset | None:
    """The pictures that a configuration names, as far as they can be known in a moment: nothing is rendered and no
    picture opened.

    None stands for toy birds that are not rendered yet.

    Raises
    ------
    ValueError : as `load_dataset`, and for a picture that is listed and not there, unless damaged ones may be left out.
    """
    _check(config)
    if config.kind == "toybirds" and not (_root(config) / "images.txt").exists():
        make_species(config.n_species, config.seed)
        return None
    dataset = _read(config)
    if not config.skip_damaged:
        dataset.check_files()
    return dataset


def _recipe(config: DataConfig) -> dict[str, int]:
    return {k: v for k, v in asdict(config).items() if k in ("n_species", "train_per_class", "test_per_class", "seed")}


def _root(config: DataConfig) -> Path:
    if config.kind == "toybirds" and not config.root:
        return cache_folder() / f"toybirds-{content_hash({**_recipe(config), 'version': _RENDERER_VERSION})}"
    return Path(config.root)


def _check(config: DataConfig) -> None:
    """Refuse settings that cannot work."""
    root = _root(config)
    if config.kind != "toybirds":
        if not config.root:
            raise ValueError(
                "data.root is empty: name the folder of the pictures, for example --set data.root=pictures "
                f"(data.kind={config.kind})"
            )
        return
    if config.crop:
        raise ValueError("data.crop=true does not go with data.kind=toybirds: their checks draw whole pictures")
    if root.exists() and not (root / "images.txt").exists() and (not root.is_dir() or any(root.iterdir())):
        raise ValueError(f"data.root (={str(root)!r}) exists and holds no toy birds: choose an empty or new folder")


def _render(config: DataConfig) -> None:
    """Make the toy birds unless they are there."""
    root = _root(config)
    root.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{root}.lock"):
        if not (root / "images.txt").exists():
            write_toybirds(root, **_recipe(config))


def _read(config: DataConfig) -> ImageDataset:
    split = {"test_share": config.test_share, "seed": config.seed}
    readers = {
        "toybirds": read_cub,
        "cub": read_cub,
        "cars": read_cars,
        "aircraft": read_aircraft,
        "folder": partial(read_folder, **split),
        "csv": partial(read_manifest, **split),
    }
    dataset = readers[config.kind](_root(config))
    return dataset.crop_to_boxes() if config.crop else dataset
