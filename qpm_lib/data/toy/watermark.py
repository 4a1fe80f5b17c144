"""A watermark: something in the pictures of one class that has nothing to do with its birds."""

import numpy as np
from jaxtyping import Bool, UInt8
from PIL import Image, ImageDraw

_COLOURS = ((255, 0, 160), (0, 200, 255), (255, 0, 160), (0, 200, 255))
_FIELD, _HEIGHT = 10, 15


def watermark(
    image: UInt8[np.ndarray, "h w 3"], seed: int
) -> tuple[UInt8[np.ndarray, "h w 3"], Bool[np.ndarray, "h w"]]:
    """Lay a colour chart, four fields of 10 x 15 pixels in two colours that no bird has, somewhere at the lower edge;
    the picture with it, and where it lies.

    A classifier that learns from pictures of which only one class has it can answer right for a wrong reason, as the
    horse classifier of Lapuschkin et al. (2019) that read a photographer's name did.
    """
    rng = np.random.default_rng([seed, 7])
    height, width = image.shape[:2]
    left = int(rng.integers(2, max(3, width - 2 - _FIELD * len(_COLOURS))))
    top = height - _HEIGHT - int(rng.integers(2, 6))
    drawn, where = Image.fromarray(image), Image.new("1", (width, height))
    for number, colour in enumerate(_COLOURS):
        x = left + _FIELD * number
        field = (x, top, x + _FIELD - 1, top + _HEIGHT - 1)
        ImageDraw.Draw(drawn).rectangle(field, fill=colour)
        ImageDraw.Draw(where).rectangle(field, fill=1)
    return np.asarray(drawn), np.asarray(where)
