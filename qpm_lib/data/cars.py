"""Stanford Cars (Krause et al., 2013) in its official layout: 196 models, 8,144 training and 8,041 test pictures."""

import zlib
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int, Shaped

from qpm_lib.data.dataset import ImageDataset
from qpm_lib.data.official import check_names, data_folder

LAYOUT = (
    "Stanford Cars needs devkit/cars_meta.mat, devkit/cars_train_annos.mat, cars_test_annos_withlabels.mat (beside "
    "devkit or in it) and the "
    "pictures in cars_train/ and cars_test/; data_scripts/fetch_cars.py says where to get them"
)


_BOX = ("bbox_x1", "bbox_y1", "bbox_x2", "bbox_y2")


def _variable(path: Path, name: str) -> Shaped[np.ndarray, "rows"]:
    """A variable of a MATLAB file as a flat array: a cell array of texts, or a struct array whose fields hold one value
    per row.
    """
    from scipy.io import loadmat
    from scipy.io.matlab import MatReadError

    try:
        content = loadmat(str(path), squeeze_me=True)
    except FileNotFoundError:
        raise ValueError(f"{path} is missing: {LAYOUT}") from None
    except (MatReadError, zlib.error, ValueError, TypeError, LookupError, OSError, NotImplementedError) as error:
        raise ValueError(f"{path} is damaged or no MATLAB file ({error}): {LAYOUT}") from error
    if name not in content:
        raise ValueError(f"{path} holds no variable {name!r}: {LAYOUT}")
    return np.atleast_1d(content[name]).reshape(-1)


def _annotations(path: Path) -> tuple[list[str], Int[np.ndarray, "images"], Float[np.ndarray, "images 4"]]:
    """File names, class numbers from 1 on, and boxes (x, y, width, height) of one half of the data set.

    The files count pixels from 1 and include both corners.
    """
    table = _variable(path, "annotations")
    absent = [field for field in ("fname", "class", *_BOX) if field not in (table.dtype.names or ())]
    if absent:
        hint = (
            " (the devkit's cars_test_annos.mat has no classes: take the file with labels)"
            if absent == ["class"]
            else ""
        )
        raise ValueError(f"{path} has no field {absent[0]!r}{hint}: {LAYOUT}")
    names = [str(name) for name in table["fname"]]
    check_names(path, names)
    try:
        classes, *sides = [table[field].astype(float) for field in ("class", *_BOX)]
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path} holds something that is not a number ({error}): take the official file") from error
    corners = np.stack(sides, axis=1)
    low = np.maximum(corners[:, :2] - 1, 0)
    return names, classes.astype(int), np.concatenate([low, corners[:, 2:] - low], axis=1)


def _test_annotations(root: Path) -> Path:
    places = [root / "cars_test_annos_withlabels.mat", root / "devkit" / "cars_test_annos_withlabels.mat"]
    for path in places:
        if path.exists():
            return path
    unlabelled = (root / "devkit" / "cars_test_annos.mat").exists()
    hint = " (cars_test_annos.mat, which is there, has no classes)" if unlabelled else ""
    raise ValueError(f"{places[0]} is missing{hint}: {LAYOUT}")


def _check_pictures(folder: Path) -> None:
    if not folder.is_dir():
        raise ValueError(f"{folder} is missing: {LAYOUT}")
    if (folder / folder.name).is_dir():
        raise ValueError(f"{folder / folder.name} is one folder too deep: move its pictures up into {folder}")


def read_cars(root: Path) -> ImageDataset:
    """Read Stanford Cars: N pictures, C classes named by maker, model and year, the official split, boxes (N, 4).

    The pictures themselves are not opened; a missing one is named when it is read.

    Parameters
    ----------
    root : the folder that holds `devkit`, or its parent, holding it as `stanford_cars`.

    Raises
    ------
    ValueError : for a missing, damaged or inconsistent file; the message names it, what is expected and how to get it.
    """
    root = data_folder(root, "stanford_cars", "devkit", LAYOUT)
    class_names = tuple(str(name).strip() for name in _variable(root / "devkit" / "cars_meta.mat", "class_names"))
    halves = {"cars_train": root / "devkit" / "cars_train_annos.mat", "cars_test": _test_annotations(root)}
    files, labels, boxes, is_train = [], [], [], []
    for folder, path in halves.items():
        _check_pictures(root / folder)
        names, classes, half_boxes = _annotations(path)
        unknown = classes[(classes < 1) | (classes > len(class_names))]
        if len(unknown):
            raise ValueError(
                f"{path} uses class {unknown[0]}, but cars_meta.mat lists classes 1 to {len(class_names)}: "
                "take both from one devkit"
            )
        files += [f"{folder}/{name}" for name in names]
        labels.append(classes - 1)
        boxes.append(half_boxes)
        is_train += [folder == "cars_train"] * len(names)
    return ImageDataset(
        root=root,
        files=tuple(files),
        labels=np.concatenate(labels),
        is_train=np.array(is_train),
        class_names=class_names,
        boxes=np.concatenate(boxes),
    )
