"""FGVC-Aircraft (Maji et al., 2013) in its official layout: 100 variants, 6,667 pictures to train and validate,
3,333 to test.
"""

from pathlib import Path

import numpy as np
from jaxtyping import Float

from qpm_lib.data.dataset import ImageDataset
from qpm_lib.data.official import check_names, data_folder

LAYOUT = (
    "FGVC-Aircraft needs data/variants.txt, data/images_variant_trainval.txt, data/images_variant_test.txt, "
    "data/images_box.txt and the "
    "pictures in data/images/; data_scripts/fetch_aircraft.py gets them"
)


def _lines(path: Path) -> list[str]:
    """The lines of a text file that are not blank; a missing, unreadable or empty file is an error that names it."""
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except FileNotFoundError:
        raise ValueError(f"{path} is missing: {LAYOUT}") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is no text file ({error}): {LAYOUT}") from error
    if not lines:
        raise ValueError(f"{path} is empty: {LAYOUT}")
    return lines


def _pairs(path: Path) -> list[tuple[str, str]]:
    """First word and rest of every line."""
    pairs = []
    for line in _lines(path):
        first, _, rest = line.partition(" ")
        if not rest.strip():
            raise ValueError(f"{path}: a picture and a value expected, found {line!r}")
        pairs.append((first, rest.strip()))
    return pairs


def _boxes(path: Path, ids: list[str]) -> Float[np.ndarray, "images 4"]:
    """x, y, width, height in the order of `ids`. The file counts pixels from 1 and includes both corners;
    a few corners lie at 0.
    """
    corners = dict(_pairs(path))
    missing = [i for i in ids if i not in corners]
    if missing:
        raise ValueError(
            f"{path} has no box for picture {missing[0]} ({len(missing)} such pictures): every picture needs one"
        )
    try:
        table = np.array([[float(value) for value in corners[i].split()] for i in ids]).reshape(len(ids), 4)
    except ValueError as error:
        raise ValueError(
            f"{path} must hold four numbers behind each picture ({error}): take the official file"
        ) from error
    low = np.maximum(table[:, :2] - 1, 0)
    return np.concatenate([low, table[:, 2:] - low], axis=1)


def read_aircraft(root: Path) -> ImageDataset:
    """Read FGVC-Aircraft at the level of variants: N pictures, C variants, training and validation pictures as
    training, boxes (N, 4).

    The lowest 20 pixel rows of an official picture are a banner with its copyright. It stays in the picture;
    the boxes exclude it. The pictures themselves are not opened; a missing one is named when it is read.

    Parameters
    ----------
    root : the folder that holds `data`, or its parent, holding it as `fgvc-aircraft-2013b`.

    Raises
    ------
    ValueError : for a missing or inconsistent file; the message names it, what is expected and how to get it.
    """
    root = data_folder(root, "fgvc-aircraft-2013b", "data/variants.txt", LAYOUT)
    data = root / "data"
    if not (data / "images").is_dir():
        raise ValueError(f"{data / 'images'} is missing: {LAYOUT}")
    class_names = tuple(_lines(data / "variants.txt"))
    index = {name: k for k, name in enumerate(class_names)}
    splits = [data / "images_variant_trainval.txt", data / "images_variant_test.txt"]
    rows = [_pairs(path) for path in splits]
    for path, pairs in zip(splits, rows, strict=True):
        unknown = [variant for _, variant in pairs if variant not in index]
        if unknown:
            raise ValueError(
                f"{path} uses variant {unknown[0]!r}, which variants.txt does not list: take both from one archive"
            )
    pairs = [*rows[0], *rows[1]]
    ids = [picture for picture, _ in pairs]
    check_names(splits[1], ids)
    return ImageDataset(
        root=root,
        files=tuple(f"data/images/{picture}.jpg" for picture in ids),
        labels=np.array([index[variant] for _, variant in pairs]),
        is_train=np.arange(len(pairs)) < len(rows[0]),
        class_names=class_names,
        boxes=_boxes(data / "images_box.txt", ids),
    )
