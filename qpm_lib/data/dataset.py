"""One description of a labelled image collection, whatever it was read from."""

import logging
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, Int
from PIL import Image, UnidentifiedImageError

from qpm_lib.artifacts import content_hash
from qpm_lib.progress import progress

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class PartLocations:
    """Where named parts are: `xy` (N, K, 2) in pixels of the original picture and `visible` (N, K)."""

    names: tuple[str, ...]
    xy: Float[np.ndarray, "images parts 2"]
    visible: Bool[np.ndarray, "images parts"]


@dataclass(frozen=True)
class ImageDataset:
    """N pictures with labels, a split and, where the source has them, boxes, parts, masks and attributes.

    Attributes
    ----------
    root, files : folder, and the path of each picture relative to it.
    labels : (N,) class index of each picture.
    is_train : (N,) true for training, false for test.
    class_names : C names.
    boxes : (N, 4) x, y, width, height in pixels.
    masks : path of each picture's segmentation relative to `root`, or None for the whole data set.
    class_attributes : (C, A) in 0 to 1. image_attributes : (N, A).
    skipped : damaged files that were left out, with the reason.
    """

    root: Path
    files: tuple[str, ...]
    labels: Int[np.ndarray, "images"]
    is_train: Bool[np.ndarray, "images"]
    class_names: tuple[str, ...]
    boxes: Float[np.ndarray, "images 4"] | None = None
    parts: PartLocations | None = None
    masks: tuple[str, ...] | None = None
    attribute_names: tuple[str, ...] = ()
    class_attributes: Float[np.ndarray, "classes attributes"] | None = None
    image_attributes: Bool[np.ndarray, "images attributes"] | None = None
    skipped: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        n, c = len(self.files), len(self.class_names)
        if n == 0:
            raise ValueError(f"{self.root} holds no pictures")
        if len(self.labels) != n or len(self.is_train) != n:
            raise ValueError(
                f"{self.root}: {n} pictures but {len(self.labels)} labels and {len(self.is_train)} split entries: every picture needs both"
            )
        for split, rows in (("training", self.is_train), ("test", ~self.is_train)):
            empty = np.flatnonzero(np.bincount(self.labels[rows], minlength=c)[:c] == 0)
            if len(empty):
                raise ValueError(
                    f"class {self.class_names[empty[0]]!r} has no {split} pictures ({len(empty)} such classes): add some or remove the class"
                )

    def __len__(self) -> int:
        return len(self.files)

    @property
    def train_rows(self) -> Int[np.ndarray, "rows"]:
        """Indices of the training pictures."""
        return np.flatnonzero(self.is_train)

    @property
    def test_rows(self) -> Int[np.ndarray, "rows"]:
        """Indices of the test pictures."""
        return np.flatnonzero(~self.is_train)

    def image(self, row: int) -> Image.Image:
        """The picture as RGB.

        Raises
        ------
        ValueError : when the file is missing or cannot be decoded; the message names it and the way out.
        """
        return read_image(self.root / self.files[row])

    def mask(self, row: int) -> Bool[np.ndarray, "h w"]:
        """Foreground mask in the picture's own size.

        Raises
        ------
        ValueError : when the data set has no segmentations, or this one is missing.
        """
        if self.masks is None:
            raise ValueError(f"{self.root} has no segmentations")
        path = self.root / self.masks[row]
        try:
            with Image.open(path) as mask:
                return np.array(mask.convert("L")) > 0
        except (OSError, UnidentifiedImageError) as error:
            raise ValueError(f"segmentation {path} is missing or damaged ({error})") from error

    def part_cells(self, rows: Int[np.ndarray, "rows"], grid: int) -> Int[np.ndarray, "rows parts 2"]:
        """Column and row of the patch that holds each part, on a grid laid over the whole picture; meaningless where a part is not visible.

        Raises
        ------
        ValueError : when the data set has no part locations.
        """
        if self.parts is None:
            raise ValueError(f"{self.root} has no part locations")
        sizes = np.array([self.image(int(row)).size for row in rows])
        return np.clip(self.parts.xy[rows] * grid / sizes[:, None], 0, grid - 1).astype(int)

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the picture list: names, file sizes, labels and split."""
        try:
            sizes = [(self.root / name).stat().st_size for name in self.files]
        except FileNotFoundError as error:
            raise _missing(Path(error.filename)) from None
        return content_hash(
            {"files": self.files, "sizes": sizes, "labels": self.labels, "train": self.is_train, "classes": self.class_names}
        )

    def keep(self, rows: Int[np.ndarray, "rows"], skipped: dict[str, str] | None = None) -> "ImageDataset":
        """The data set reduced to some pictures; classes and their order stay."""
        pick = {
            name: None if getattr(self, name) is None else getattr(self, name)[rows]
            for name in ("labels", "is_train", "boxes", "image_attributes")
        }
        parts = self.parts and PartLocations(self.parts.names, self.parts.xy[rows], self.parts.visible[rows])
        masks = None if self.masks is None else tuple(self.masks[i] for i in rows)
        return replace(
            self, files=tuple(self.files[i] for i in rows), parts=parts, masks=masks, skipped={**self.skipped, **(skipped or {})}, **pick
        )


def _missing(path: Path) -> ValueError:
    return ValueError(f"picture {path} is missing: restore it, or set data.skip_damaged=true to leave such files out")


def read_image(path: Path) -> Image.Image:
    """Read a picture as RGB.

    Raises
    ------
    ValueError : when the file is missing or cannot be decoded.
    """
    try:
        with Image.open(path) as image:
            return image.convert("RGB")
    except FileNotFoundError:
        raise _missing(path) from None
    except (OSError, UnidentifiedImageError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(
            f"picture {path} is damaged ({error}): replace it, or set data.skip_damaged=true to leave such files out"
        ) from error


def without_damaged(dataset: ImageDataset) -> ImageDataset:
    """Open every picture once and leave out those that cannot be read; they are listed in `skipped` and logged."""
    bad: dict[str, str] = {}
    rows = []
    for row in progress(range(len(dataset)), "checking pictures"):
        try:
            dataset.image(row)
            rows.append(row)
        except ValueError as error:
            bad[dataset.files[row]] = " ".join(str(error).split(": ")[0].replace(str(dataset.root / dataset.files[row]), "").split())
    for name, reason in bad.items():
        log.warning("left out %s: %s", name, reason)
    return dataset.keep(np.array(rows, dtype=int), bad) if bad else dataset
