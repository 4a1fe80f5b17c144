"""Pictures of your own: a folder with one sub-folder per class, or a CSV file."""

import csv
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Int

from qpm_lib.data.dataset import ImageDataset

EXTENSIONS = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff")


def stratified_split(labels: Int[np.ndarray, "images"], test_share: float, seed: int) -> Bool[np.ndarray, "images"]:
    """True for training: of every class a seeded share is held out, at least one picture and never all. Classes need two pictures."""
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
        raise ValueError(f"data.root (={str(root)!r}) is not a folder: it must hold one sub-folder of pictures per class")
    classes = sorted(p.name for p in root.iterdir() if p.is_dir() and not p.name.startswith("."))
    if len(classes) < 2:
        raise ValueError(f"{root} holds {len(classes)} sub-folders: at least two classes are needed, one sub-folder each")
    files, labels = [], []
    for label, name in enumerate(classes):
        pictures = sorted(p for p in (root / name).iterdir() if p.suffix.lower() in EXTENSIONS and p.is_file())
        if len(pictures) < 2:
            raise ValueError(
                f"class folder {root / name} holds {len(pictures)} pictures: at least two are needed, one to train and one to test"
            )
        files += [p.relative_to(root).as_posix() for p in pictures]
        labels += [label] * len(pictures)
    is_train = stratified_split(np.array(labels), test_share, seed)
    return ImageDataset(root=root, files=tuple(files), labels=np.array(labels), is_train=is_train, class_names=tuple(classes))


def read_manifest(path: Path, *, test_share: float = 0.3, seed: int = 0) -> ImageDataset:
    """Read a CSV file with a header: `file` (relative to the CSV file), `label`, and perhaps `split` (train or test).

    Without a `split` column the split is that of `read_folder`.

    Raises
    ------
    ValueError : for a missing file or column, a file named twice or outside the folder of the CSV file, an unknown split, or a class with
        fewer than two pictures; the line is named.
    """
    if not path.is_file():
        raise ValueError(f"data.root (={str(path)!r}) is not a CSV file: data.kind=csv needs one with the columns file,label[,split]")
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            table = csv.DictReader(file)
            rows, columns = list(table), table.fieldnames or []
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path} cannot be read as CSV in UTF-8 ({error})") from error
    missing = {"file", "label"} - set(columns)
    if missing:
        raise ValueError(f"{path} has the columns {', '.join(columns) or 'none'}: {', '.join(sorted(missing))} missing")
    root, seen = path.parent.resolve(), set()
    for line, row in enumerate(rows, 2):
        name, label = (row["file"] or "").strip(), (row["label"] or "").strip()
        if not name or not label:
            raise ValueError(f"{path}, line {line}: file and label must not be empty")
        if not (root / name).resolve().is_relative_to(root):
            raise ValueError(f"{path}, line {line}: {name!r} lies outside {path.parent}; files must lie beside the CSV file or below it")
        if name in seen:
            raise ValueError(f"{path}, line {line}: {name!r} is listed twice")
        if "split" in columns and row["split"] not in ("train", "test"):
            raise ValueError(f"{path}, line {line}: split (={row['split']!r}) must be train or test")
        seen.add(name)
    classes = sorted({row["label"].strip() for row in rows})
    if len(classes) < 2:
        raise ValueError(f"{path} names {len(classes)} classes: at least two are needed")
    labels = np.array([classes.index(row["label"].strip()) for row in rows])
    rare = np.flatnonzero(np.bincount(labels) < 2)
    if len(rare):
        raise ValueError(f"{path}: class {classes[rare[0]]!r} has one picture ({len(rare)} such classes): at least two are needed")
    is_train = np.array([row["split"] == "train" for row in rows]) if "split" in columns else stratified_split(labels, test_share, seed)
    files = tuple(row["file"].strip() for row in rows)
    return ImageDataset(root=path.parent, files=files, labels=labels, is_train=is_train, class_names=tuple(classes))
