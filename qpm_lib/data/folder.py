"""Pictures of your own: a folder with one sub-folder per class, or a CSV file."""

import csv
import os
from pathlib import Path, PurePosixPath

import numpy as np
from jaxtyping import Bool, Int

from qpm_lib.data.dataset import ImageDataset
from qpm_lib.data.official import leads_out

EXTENSIONS = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff")


def is_picture(path: Path) -> bool:
    """Whether a file has the name of a picture; files that start with a dot (macOS leaves such) are none."""
    return path.suffix.lower() in EXTENSIONS and not path.name.startswith(".") and path.is_file()


def stratified_split(labels: Int[np.ndarray, "images"], test_share: float, seed: int) -> Bool[np.ndarray, "images"]:
    """True for training: of every class a seeded share is held out, at least one picture and never all.
    Classes need two pictures.
    """
    rng, is_train = np.random.default_rng([seed, 5]), np.ones(len(labels), bool)
    for label in range(int(labels.max()) + 1):
        rows = np.flatnonzero(labels == label)
        n_test = min(max(1, round(test_share * len(rows))), len(rows) - 1)
        is_train[rows[rng.permutation(len(rows))[:n_test]]] = False
    return is_train


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
        raise ValueError(
            f"data.root (={str(root)!r}) is not a folder: it must hold one sub-folder of pictures per class"
        )
    classes = sorted(
        p.name for p in root.iterdir() if p.is_dir() and not p.name.startswith(".") and p.name != "__MACOSX"
    )
    if len(classes) < 2:
        raise ValueError(
            f"{root} holds {len(classes)} sub-folders: at least two classes are needed, one sub-folder each"
        )
    files, labels = [], []
    for label, name in enumerate(classes):
        pictures = sorted(p for p in (root / name).iterdir() if is_picture(p))
        if len(pictures) < 2:
            raise ValueError(
                f"class folder {root / name} holds {len(pictures)} pictures: at least two are needed, "
                "one to train and one to test"
            )
        files += [p.relative_to(root).as_posix() for p in pictures]
        labels += [label] * len(pictures)
    is_train = stratified_split(np.array(labels), test_share, seed)
    return ImageDataset(
        root=root, files=tuple(files), labels=np.array(labels), is_train=is_train, class_names=tuple(classes)
    )


def _table(path: Path) -> list[tuple[int, dict[str, str]]]:
    """Rows of a CSV file with the lines they end on; blanks around names and values are dropped."""
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file)
            names = [name.strip() for name in next(reader, [])]
            lines = [(reader.line_num, [cell.strip() for cell in row]) for row in reader if row]
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path} cannot be read as CSV in UTF-8 ({error})") from error
    missing = {"file", "label"} - set(names)
    if missing or len(set(names)) < len(names):
        lacks = f" ({', '.join(sorted(missing))} missing)" if missing else ""
        raise ValueError(
            f"{path} has the columns {names}: file and label, each once and separated by commas, are needed{lacks}"
        )
    for line, row in lines:
        if len(row) != len(names):
            raise ValueError(
                f"{path}, line {line}: {len(row)} values for {len(names)} columns; a name with a comma needs quotes"
            )
    return [(line, dict(zip(names, row, strict=True))) for line, row in lines]


def read_manifest(path: Path, *, test_share: float = 0.3, seed: int = 0) -> ImageDataset:
    """Read a CSV file with a header: `file` (relative to the CSV file), `label`, and perhaps `split` (train or test).

    Without a `split` column the split is that of `read_folder`.

    Raises
    ------
    ValueError : for a missing file or column, a file named twice or outside the folder of the CSV file,
        an unknown split, or a class with fewer than two pictures; the line is named.
    """
    if not path.is_file():
        raise ValueError(
            f"data.root (={str(path)!r}) is not a CSV file: data.kind=csv needs one with the columns file,label[,split]"
        )
    rows = _table(path)
    seen = set()
    for line, row in rows:
        name = row["file"]
        if not name or not row["label"]:
            raise ValueError(f"{path}, line {line}: file and label must not be empty")
        if leads_out(name) or "\0" in name:
            raise ValueError(
                f"{path}, line {line}: {name!r} lies outside {path.parent}; files must lie beside the CSV file or "
                "below it"
            )
        place = os.path.normcase(PurePosixPath(name))
        if place in seen:
            raise ValueError(f"{path}, line {line}: {name!r} is listed twice")
        if row.get("split", "train") not in ("train", "test"):
            raise ValueError(f"{path}, line {line}: split (={row['split']!r}) must be train or test")
        seen.add(place)
    classes = sorted({row["label"] for _, row in rows})
    if len(classes) < 2:
        raise ValueError(f"{path} names {len(classes)} classes: at least two are needed")
    labels = np.array([classes.index(row["label"]) for _, row in rows])
    rare = np.flatnonzero(np.bincount(labels) < 2)
    if len(rare):
        raise ValueError(
            f"{path}: class {classes[rare[0]]!r} has one picture ({len(rare)} such classes): at least two are needed"
        )
    given = np.array([row.get("split") == "train" for _, row in rows])
    is_train = given if "split" in rows[0][1] else stratified_split(labels, test_share, seed)
    files = tuple(row["file"] for _, row in rows)
    return ImageDataset(root=path.parent, files=files, labels=labels, is_train=is_train, class_names=tuple(classes))
