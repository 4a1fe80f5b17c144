"""Pictures with maps for the explorer and the report, fast: everything that does not change with a
control is prepared once per picture.

A picture with five maps at 448 pixels is blended and encoded in well under 60 ms (`benchmarks/explorer.py`)."""

import io
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from qpm_lib.plotting.colours import rgb

_QUALITY = 88


def to_jpeg(pixels: UInt8[np.ndarray, "h w 3"]) -> bytes:
    """JPEG bytes of a picture."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=_QUALITY)
    return buffer.getvalue()


class Canvas:
    """One picture with the maps of some features, ready to be blended.

    Parameters
    ----------
    image : what the backbone saw. maps : by feature, each (g, g); negative values count by their size. colours :
        by feature.
    side : pixels of the result. Maps share one scale: the largest value of all of them is the full colour.

    Attributes
    ----------
    plain : (side, side, 3) the picture. grey : the same in pale grey. maps : by feature, (side, side) in 0 to 1. ink :
    by feature, its colour as three bytes. What is left to do when a slider moves is a lookup table and a blend in
    Pillow, in bytes.
    """

    def __init__(
        self,
        image: Image.Image,
        maps: Mapping[int, Float[np.ndarray, "g g"]],
        colours: Sequence[str],
        *,
        side: int = 448,
    ) -> None:
        small = image.resize((side, side), Image.Resampling.BILINEAR)
        self.plain = np.asarray(small, np.uint8)
        self.grey = Image.merge("RGB", [small.convert("L").point([round(90 + 0.6 * v) for v in range(256)])] * 3)
        top = max((float(np.abs(m).max()) for m in maps.values()), default=0.0) or 1.0
        self.maps = {
            f: np.asarray(
                Image.fromarray((np.abs(m) / top).astype(np.float32)).resize((side, side), Image.Resampling.BILINEAR)
            )
            for f, m in maps.items()
        }
        self.ink = {f: np.round(255 * rgb(colours[f])).astype(np.uint8) for f in maps}
        self._layers: tuple[tuple[int, ...], Image.Image, Image.Image] | None = None

    def _layer(self, features: tuple[int, ...]) -> tuple[Image.Image, Image.Image]:
        """Ink of the strongest feature at each pixel, and how strong it is to the power of 0.7;
        kept until other features are asked for.
        """
        if self._layers is None or self._layers[0] != features:
            stack = np.stack([self.maps[f] for f in features])
            ink = np.stack([self.ink[f] for f in features])[stack.argmax(0)]
            strength = np.round(255 * stack.max(0) ** 0.7).astype(np.uint8)
            self._layers = features, Image.fromarray(ink), Image.fromarray(strength)
        return self._layers[1:]

    def blend(
        self, features: Sequence[int], *, opacity: float = 0.8, threshold: float = 0.0
    ) -> UInt8[np.ndarray, "side side 3"]:
        """The picture in pale grey, each pixel in the colour of its strongest feature; values below `threshold` of the
        largest stay grey.

        Without features, or with opacity 0, the picture is shown as it is.
        """
        shown = tuple(f for f in features if f in self.maps)
        if not shown or opacity <= 0:
            return self.plain
        ink, strength = self._layer(shown)
        mask = strength.point([round(opacity * v) if v >= 255 * threshold**0.7 else 0 for v in range(256)])
        return np.asarray(Image.composite(ink, self.grey, mask))


def framed(
    pixels: UInt8[np.ndarray, "side side 3"], column: int, row: int, grid: int
) -> UInt8[np.ndarray, "side side 3"]:
    """A copy with a black and white frame around one patch."""
    marked, side = pixels.copy(), len(pixels)
    left, top = (int(v * side / grid) for v in (column, row))
    width = max(4, side // grid)
    for inset, value in ((0, 0), (2, 255)):
        y0, y1, x0, x1 = top + inset, min(side, top + width) - inset, left + inset, min(side, left + width) - inset
        for edge in (
            np.s_[y0 : y0 + 2, x0:x1],
            np.s_[y1 - 2 : y1, x0:x1],
            np.s_[y0:y1, x0 : x0 + 2],
            np.s_[y0:y1, x1 - 2 : x1],
        ):
            marked[edge] = value
    return marked


def place_in_words(heat: Float[np.ndarray, "g g"]) -> str:
    """Where a map is strongest: `upper left`, `in the centre`, and so on."""
    row, column = np.unravel_index(np.abs(heat).argmax(), heat.shape)
    down, across = (min(2, 3 * int(v) // len(heat)) for v in (row, column))
    words = f"{('upper', 'middle', 'lower')[down]} {('left', 'centre', 'right')[across]}"
    return "in the centre" if words == "middle centre" else words
