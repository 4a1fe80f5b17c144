"""One description of a labelled image collection, whatever it was read from."""

import logging
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, Int
from PIL import Image, UnidentifiedImageError

from qpm_lib.core import content_hash, progress
from qpm_lib.data.pictures import UnreadableError, box_window, missing_picture, read_image

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
    cropped : pictures and masks are cut to their boxes. `boxes` and `parts` stay in pixels of the file.
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
    cropped: bool = False

    def __post_init__(self) -> None:
        n, c = len(self.files), len(self.class_names)
        if n == 0:
            raise ValueError(f"{self.root} holds no pictures")
        if len(self.labels) != n or len(self.is_train) != n:
            raise ValueError(
                f"{self.root}: {n} pictures but {len(self.labels)} labels and {len(self.is_train)} split entries: "
                "every picture needs both"
            )
        for split, rows in (("training", self.is_train), ("test", ~self.is_train)):
            empty = np.flatnonzero(np.bincount(self.labels[rows], minlength=c)[:c] == 0)
            if len(empty):
                raise ValueError(
                    f"class {self.class_names[empty[0]]!r} has no {split} pictures ({len(empty)} such classes): "
                    "add some or remove the class"
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

    def crop_to_boxes(self) -> "ImageDataset":
        """The same data set with every picture and mask cut to its box.

        Raises
        ------
        ValueError : when there are no boxes.
        """
        if self.boxes is None:
            raise ValueError(f"{self.root} has no bounding boxes: data.crop=true needs them, leave it out")
        return replace(self, cropped=True)

    def _cut(self, row: int, image: Image.Image) -> Image.Image:
        return image.crop(box_window(self.boxes[row], image.size)) if self.cropped else image

    def image(self, row: int) -> Image.Image:
        """The picture as RGB. It is turned upright as its EXIF data say, unless boxes, parts or masks tell where things
        are in the file.

        Raises
        ------
        ValueError : when the file is missing or cannot be decoded; the message names it and the way out.
        """
        annotated = not (self.boxes is None and self.parts is None and self.masks is None)
        return self._cut(row, read_image(self.root / self.files[row], upright=not annotated))

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
                return np.array(self._cut(row, mask.convert("L"))) > 0
        except (OSError, UnidentifiedImageError) as error:
            raise ValueError(f"segmentation {path} is missing or damaged ({error})") from error

    def check_files(self) -> list[int]:
        """Sizes of all picture files in bytes; they are not opened.

        Raises
        ------
        ValueError : naming the first that is missing.
        """
        try:
            return [(self.root / name).stat().st_size for name in self.files]
        except FileNotFoundError as error:
            raise missing_picture(Path(error.filename)) from None

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the picture list: names, file sizes, labels and split."""
        sizes = self.check_files()
        content = {
            "files": self.files,
            "sizes": sizes,
            "labels": self.labels,
            "train": self.is_train,
            "classes": self.class_names,
        }
        return content_hash({**content, "boxes": self.boxes} if self.cropped else content)

    def keep(self, rows: Int[np.ndarray, "rows"], skipped: dict[str, str] | None = None) -> "ImageDataset":
        """The data set reduced to some pictures; classes and their order stay."""
        pick = {
            name: None if getattr(self, name) is None else getattr(self, name)[rows]
            for name in ("labels", "is_train", "boxes", "image_attributes")
        }
        parts = self.parts and PartLocations(self.parts.names, self.parts.xy[rows], self.parts.visible[rows])
        masks = None if self.masks is None else tuple(self.masks[i] for i in rows)
        return replace(
            self,
            files=tuple(self.files[i] for i in rows),
            parts=parts,
            masks=masks,
            skipped={**self.skipped, **(skipped or {})},
            **pick,
        )


def without_damaged(dataset: ImageDataset) -> ImageDataset:
    """Open every picture once and leave out those that cannot be read; they are listed in `skipped` and logged."""
    bad: dict[str, str] = {}
    rows = []
    for row in progress(range(len(dataset)), "checking pictures"):
        try:
            dataset.image(row)
            rows.append(row)
        except UnreadableError as error:
            bad[dataset.files[row]] = error.reason
    for name, reason in bad.items():
        log.warning("left out %s: %s", name, reason)
    return dataset.keep(np.array(rows, dtype=int), bad) if bad else dataset
