"""Picture files of any kind as RGB, and where a point of a picture lies in the square that a backbone sees."""

import struct
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from PIL import Image, ImageOps, UnidentifiedImageError

# What Pillow raises for files from anywhere, broken EXIF data included.
DAMAGED = (
    OSError,
    UnidentifiedImageError,
    SyntaxError,
    ValueError,
    TypeError,
    LookupError,
    EOFError,
    struct.error,
    Image.DecompressionBombError,
)


_LEAVE_OUT = "or set data.skip_damaged=true to leave such files out"


class UnreadableError(ValueError):
    """A picture that cannot be read; `reason` says why in a few words."""

    def __init__(self, path: Path, reason: str, way_out: str) -> None:
        super().__init__(f"picture {path} is {reason}: {way_out}")
        self.reason = reason


def missing_picture(path: Path) -> UnreadableError:
    """The error for a file that is not there."""
    return UnreadableError(path, "missing", f"restore it, {_LEAVE_OUT}")


def square_position(
    xy: Float[np.ndarray, "points 2"], size: tuple[int, int], aspect: str
) -> Float[np.ndarray, "points 2"]:
    """Pixels of a picture as places in the square that the backbone sees, 0 to 1; outside of that where `crop` cuts a
    point away.
    """
    width, height = size
    if aspect == "squash":
        return xy / [width, height]
    side = min(size)
    return (xy - [(width - side) / 2, (height - side) / 2]) / side


def picture_position(
    place: Float[np.ndarray, "points 2"], size: tuple[int, int], aspect: str
) -> Float[np.ndarray, "points 2"]:
    """The inverse of `square_position`."""
    width, height = size
    if aspect == "squash":
        return place * [width, height]
    side = min(size)
    return place * side + [(width - side) / 2, (height - side) / 2]


def box_window(box: Float[np.ndarray, "4"], size: tuple[int, int]) -> tuple[int, int, int, int]:
    """Left, top, right and bottom of a box x, y, width, height in whole pixels, inside the picture and at least one
    pixel wide.
    """
    left, top = (int(np.clip(np.floor(box[i]), 0, size[i] - 1)) for i in (0, 1))
    right, bottom = (int(np.clip(np.ceil(box[i] + box[i + 2]), low + 1, size[i])) for i, low in ((0, left), (1, top)))
    return left, top, right, bottom


def to_rgb(image: Image.Image, *, upright: bool = True) -> Image.Image:
    """Any picture as 8-bit RGB: turned upright by its EXIF data, transparent parts on white.

    16 bits are divided by 257, 32 bits too unless no value exceeds 255; floating point is read as 0 to 1 unless a value
    exceeds 1.

    Raises
    ------
    ValueError : for values that are not finite.
    """
    if upright:
        image = ImageOps.exif_transpose(image)
    if image.mode[0] in "IF":
        grey = np.asarray(image, np.float64)
        if not np.isfinite(grey).all():
            raise ValueError("it holds values that are not finite")
        top = grey.max(initial=0)
        scale = (
            255.0
            if image.mode == "F" and top <= 1
            else 1.0
            if top <= 255 and not image.mode.startswith("I;16")
            else 1 / 257
        )
        image = Image.fromarray(np.clip(grey * scale, 0, 255).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    image = image.convert("RGB")
    image.info.pop("exif", None)  # so that nobody turns it again
    return image


def all_rgb(images: Any) -> list[Image.Image]:
    """Pictures as `to_rgb` makes them, from whatever was given for a list of pictures.

    Raises
    ------
    ValueError : for no pictures, or something that is no list of PIL images.
    """
    if isinstance(images, Image.Image) or not all(isinstance(image, Image.Image) for image in images):
        raise ValueError("pictures must be given as a list of PIL images, for example [Image.open(path)]")
    if not len(images):
        raise ValueError("no pictures were given")
    return [to_rgb(image) for image in images]


def read_image(path: Path, *, upright: bool = True) -> Image.Image:
    """Read a picture as RGB (see `to_rgb`).

    Raises
    ------
    ValueError : when the file is missing or cannot be decoded.
    """
    try:
        with Image.open(path) as image:
            return to_rgb(image, upright=upright)
    except FileNotFoundError:
        raise missing_picture(path) from None
    except DAMAGED as error:
        detail = str(error).replace(f" {str(path)!r}", "") or type(error).__name__
        raise UnreadableError(path, f"damaged ({detail})", f"replace it, {_LEAVE_OUT}") from error
