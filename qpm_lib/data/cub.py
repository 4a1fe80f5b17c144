"""Data sets in the layout of CUB-200-2011 (Wah et al., 2011): official files and our toy birds alike."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float

from qpm_lib.data.dataset import ImageDataset, PartLocations


def _rows(path: Path, width: int, *, rest: bool = False) -> list[list[str]]:
    """Fields of a space-separated text file.

    `rest` keeps blanks inside the last field. A line with too few fields is an error that names file and line.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        raise ValueError(f"{path} is missing: data.root must be a folder in the layout of CUB_200_2011") from None
    rows = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        fields = line.split(" ", width - 1) if rest else line.split()
        if len(fields) < width:
            raise ValueError(f"{path}, line {number}: {width} fields expected, found {line!r}")
        rows.append(fields[:width])
    return rows


def _by_image(path: Path, ids: Sequence[str], width: int) -> Float[np.ndarray, "images fields"]:
    """Numbers of a file whose first field is the picture's id, in the order of `ids`."""
    table = {row[0]: row[1:] for row in _rows(path, width)}
    missing = [i for i in ids if i not in table]
    if missing:
        raise ValueError(
            f"{path} has no entry for picture {missing[0]} ({len(missing)} such pictures): "
            "every picture in images.txt needs one"
        )
    try:
        return np.array([table[i] for i in ids], float)
    except ValueError as error:
        raise ValueError(f"{path} holds something that is not a number ({error})") from error


def _parts(root: Path, ids: Sequence[str]) -> PartLocations | None:
    if not (root / "parts" / "part_locs.txt").exists():
        return None
    names = _rows(root / "parts" / "parts.txt", 2, rest=True)
    part = {row[0]: k for k, row in enumerate(names)}
    row_of = {image: row for row, image in enumerate(ids)}
    xy, visible = np.zeros((len(ids), len(names), 2)), np.zeros((len(ids), len(names)), bool)
    for image, part_id, x, y, seen in _rows(root / "parts" / "part_locs.txt", 5):
        if image in row_of and part_id in part:
            xy[row_of[image], part[part_id]] = float(x), float(y)
            visible[row_of[image], part[part_id]] = seen == "1"
    return PartLocations(tuple(row[1] for row in names), xy, visible)


def _class_attributes(root: Path, n_classes: int) -> Float[np.ndarray, "classes attributes"] | None:
    path = root / "attributes" / "class_attribute_labels_continuous.txt"
    if not path.exists():
        return None
    table = np.loadtxt(path, ndmin=2) / 100
    if len(table) != n_classes:
        raise ValueError(f"{path} has {len(table)} rows for {n_classes} classes")
    return table


def _image_attributes(
    root: Path, ids: Sequence[str], n_attributes: int
) -> Bool[np.ndarray, "images attributes"] | None:
    path = root / "attributes" / "image_attribute_labels.txt"
    if not path.exists() or n_attributes == 0:
        return None
    row_of = {image: row for row, image in enumerate(ids)}
    table = np.zeros((len(ids), n_attributes), bool)
    for image, attribute, present in _rows(path, 3):
        if image in row_of:
            table[row_of[image], int(attribute) - 1] = present == "1"
    return table


def _attribute_names(root: Path) -> tuple[str, ...]:
    for path in (root / "attributes" / "attributes.txt", root / "attributes.txt", root.parent / "attributes.txt"):
        if path.exists():
            return tuple(row[1] for row in _rows(path, 2, rest=True))
    return ()


def read_cub(root: Path) -> ImageDataset:
    """Read a folder in the layout of CUB-200-2011.

    `images.txt`, `image_class_labels.txt`, `train_test_split.txt` and `classes.txt` are needed; boxes, parts,
    attributes and `segmentations/` are read where they exist.

    Raises
    ------
    ValueError : for a missing or inconsistent file; the message names the file and, where there is one, the line.
    """
    images = _rows(root / "images.txt", 2, rest=True)
    ids, names = [row[0] for row in images], [row[1].strip() for row in images]
    if not names:
        raise ValueError(f"{root / 'images.txt'} is empty: it must list one picture per line")
    for name in names:
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise ValueError(f"{root / 'images.txt'} names {name!r}, which lies outside the folder")
    classes = _rows(root / "classes.txt", 2, rest=True)
    index = {int(row[0]): k for k, row in enumerate(classes)}
    class_ids = _by_image(root / "image_class_labels.txt", ids, 2)[:, 0].astype(int)
    unknown = sorted(set(class_ids.tolist()) - set(index))
    if unknown:
        raise ValueError(f"{root / 'image_class_labels.txt'} uses class {unknown[0]}, which classes.txt does not list")
    masks = tuple(str(Path("segmentations", name).with_suffix(".png").as_posix()) for name in names)
    class_attributes = _class_attributes(root, len(classes))
    return ImageDataset(
        root=root,
        files=tuple(f"images/{name}" for name in names),
        labels=np.array([index[c] for c in class_ids]),
        is_train=_by_image(root / "train_test_split.txt", ids, 2)[:, 0] == 1,
        class_names=tuple(row[1] for row in classes),
        boxes=_by_image(root / "bounding_boxes.txt", ids, 5) if (root / "bounding_boxes.txt").exists() else None,
        parts=_parts(root, ids),
        masks=masks if (root / "segmentations").is_dir() else None,
        attribute_names=_attribute_names(root),
        class_attributes=class_attributes,
        image_attributes=_image_attributes(root, ids, 0 if class_attributes is None else class_attributes.shape[1]),
    )
