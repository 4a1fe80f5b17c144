"""A folder of pictures, one sub-folder per class."""

from pathlib import Path

import numpy as np

from qpm_lib.data.dataset import ImageDataset

EXTENSIONS = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff")


def read_folder(root: Path, *, test_share: float = 0.3, seed: int = 0) -> ImageDataset:
    """Read `root/<class>/<picture>` with a seeded split, stratified by class.

    Parameters
    ----------
    test_share : share of each class's pictures that is held out for testing, at least one.

    Raises
    ------
    ValueError : when there is no such folder, fewer than two classes, or a class with fewer than two pictures.
    """
    if not root.is_dir():
        raise ValueError(f"data.root (={str(root)!r}) is not a folder: it must hold one sub-folder of pictures per class")
    classes = sorted(p.name for p in root.iterdir() if p.is_dir() and not p.name.startswith("."))
    if len(classes) < 2:
        raise ValueError(f"{root} holds {len(classes)} sub-folders: at least two classes are needed, one sub-folder each")
    rng = np.random.default_rng([seed, 5])
    files, labels, is_train = [], [], []
    for label, name in enumerate(classes):
        pictures = sorted(p for p in (root / name).iterdir() if p.suffix.lower() in EXTENSIONS and p.is_file())
        if len(pictures) < 2:
            raise ValueError(
                f"class folder {root / name} holds {len(pictures)} pictures: at least two are needed, one to train and one to test"
            )
        n_test = min(max(1, round(test_share * len(pictures))), len(pictures) - 1)
        test = set(rng.permutation(len(pictures))[:n_test].tolist())
        files += [p.relative_to(root).as_posix() for p in pictures]
        labels += [label] * len(pictures)
        is_train += [k not in test for k in range(len(pictures))]
    return ImageDataset(root=root, files=tuple(files), labels=np.array(labels), is_train=np.array(is_train), class_names=tuple(classes))
