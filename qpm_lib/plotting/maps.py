"""Maps over their pictures, as RGB arrays in 0 to 1."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Bool, Float, Integer, Shaped, UInt8
from torch import Tensor
from torch.nn import functional as F

from qpm_lib.plotting.colours import PALETTE, rgb

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Image = Float[np.ndarray, "h w 3"] | UInt8[np.ndarray, "h w 3"]


def _as_float(image: Image) -> Float[np.ndarray, "h w 3"]:
    array = np.asarray(image)
    return array / 255.0 if array.dtype == np.uint8 else array.astype(float)


def upsample(maps: Float[Tensor, "batch g g"], size: tuple[int, int]) -> Float[Tensor, "batch height width"]:
    """Maps at the size of a picture (height, width), bilinear."""
    return rearrange(
        F.interpolate(maps[:, None].float(), size=size, mode="bilinear", align_corners=False), "b 1 y x -> b y x"
    )


def _upsampled(heat: Float[np.ndarray, "g g"], size: tuple[int, int]) -> Float[np.ndarray, "h w"]:
    return upsample(torch.as_tensor(np.ascontiguousarray(heat))[None], size)[0].numpy()


def overlay(
    image: Image, heat: Float[np.ndarray, "g g"], colour: str, *, top: float | None = None
) -> Float[np.ndarray, "h w 3"]:
    """A map over its picture: the picture in pale grey, the map from white to `colour`, bilinear.

    Parameters
    ----------
    top : value that gets the full colour; None takes the map's own maximum (per-map scaling).
        A map of zeros stays grey.
    """
    grey = _as_float(image) @ np.array([0.299, 0.587, 0.114])
    grey = 0.35 + 0.6 * grey[..., None]
    high = float(heat.max()) if top is None else top
    strength = np.clip(_upsampled(heat, grey.shape[:2]) / high, 0, 1)[..., None] if high > 0 else np.zeros_like(grey)
    return grey * (1 - strength) + strength * (0.25 * grey + 0.75 * rgb(colour))


def signed_overlay(
    image: Image, heat: Float[np.ndarray, "g g"], *, colours: tuple[str, str] = (PALETTE[3], PALETTE[5])
) -> Float[np.ndarray, "h w 3"]:
    """A map with a sign over its picture: what is above zero in the first colour, what is below in the second.

    Both sides have one scale, which ends at the larger absolute value of the 0.1 % and 99.9 % quantiles, so that a
    single patch does not decide it; zero stays grey.
    """
    top = float(np.abs(np.quantile(heat, [0.001, 0.999])).max())
    found = overlay(image, heat.clip(0), colours[0], top=top)
    below = _upsampled((-heat).clip(0), found.shape[:2]) > _upsampled(heat.clip(0), found.shape[:2])
    return np.where(below[..., None], overlay(image, (-heat).clip(0), colours[1], top=top), found)


def combined_overlay(
    image: Image, maps: Float[np.ndarray, "k g g"], colours: Sequence[str]
) -> Float[np.ndarray, "h w 3"]:
    """All maps of a class in one picture: each pixel shows its strongest feature, scaled by the strongest value of all
    of them.
    """
    grey = _as_float(image) @ np.array([0.299, 0.587, 0.114])
    grey = 0.35 + 0.6 * grey[..., None]
    big = np.stack([_upsampled(m, grey.shape[:2]) for m in maps])
    if big.max() <= 0:
        return np.repeat(grey, 3, axis=2)
    strength = np.clip(big.max(0) / big.max(), 0, 1)[..., None] ** 0.7
    ink = np.array([rgb(c) for c in colours])[big.argmax(0)]
    return grey * (1 - strength) + strength * (0.2 * grey + 0.8 * ink)


def label_overlay(
    image: Image, labels: Integer[np.ndarray, "rows columns"], colours: Sequence[str]
) -> Float[np.ndarray, "h w 3"]:
    """A segmentation over its picture in pale grey, with a white line between clusters; labels of any size, for
    example of patches, are enlarged without smoothing.
    """
    grey = 0.2 + 0.7 * (_as_float(image) @ np.array([0.299, 0.587, 0.114]))[..., None]
    big = _enlarged(labels, grey)
    found = 0.45 * grey + 0.55 * np.array([rgb(colour) for colour in colours])[big]
    found[1:][big[1:] != big[:-1]] = 1
    found[:, 1:][big[:, 1:] != big[:, :-1]] = 1
    return found


def outlined(image: Image, marked: Bool[np.ndarray, "rows columns"]) -> Float[np.ndarray, "h w 3"]:
    """A picture with a line, white in black, around what is marked (patches, or pixels)."""
    from scipy.ndimage import binary_dilation, binary_erosion  # takes a while to load

    found, big = _as_float(image).copy(), _enlarged(marked, image)
    for width, ink in ((2, 0.0), (1, 1.0)):
        found[binary_dilation(big, iterations=width) & ~binary_erosion(big, iterations=width, border_value=1)] = ink
    return found


def _enlarged(
    small: Shaped[np.ndarray, "rows columns"], image: Shaped[np.ndarray, "h w ..."]
) -> Shaped[np.ndarray, "h w"]:
    """To the pixels of a picture, without smoothing."""
    y, x = (np.arange(n) * m // n for n, m in zip(image.shape[:2], small.shape, strict=True))
    return small[np.ix_(y, x)]


def token_colours(patches: Float[np.ndarray, "images patches dim"]) -> Float[np.ndarray, "images g g 3"]:
    """First three principal components of patch tokens as red, green and blue, on common axes for all pictures (2 to 98
    % range).
    """
    flat = patches.reshape(-1, patches.shape[-1]).astype(float)
    centred = flat - flat.mean(0)
    _, _, axes = np.linalg.svd(centred[:: max(1, len(centred) // 4000)], full_matrices=False)
    points = centred @ axes[:3].T
    low, high = np.percentile(points, [2, 98], axis=0)
    grid = round(patches.shape[1] ** 0.5)
    return np.clip((points - low) / (high - low), 0, 1).reshape(len(patches), grid, grid, 3)


def show_images(
    ax: "Axes",
    images: Sequence[Image],
    *,
    columns: int = 6,
    titles: Sequence[str] = (),
    gap: int = 4,
    caption: str = "",
) -> "Axes":
    """Pictures of one size in rows, with an optional title above each."""
    pictures = [_as_float(image) for image in images]
    height, width = pictures[0].shape[:2]
    rows = -(-len(pictures) // columns)
    lines = max((title.count("\n") + 1 for title in titles), default=0)
    head = round((0.08 + 0.08 * lines) * height) if lines else 0
    sheet = np.ones((rows * (height + gap + head) - gap, columns * (width + gap) - gap, 3))
    for i, picture in enumerate(pictures):
        y, x = (i // columns) * (height + gap + head) + head, (i % columns) * (width + gap)
        sheet[y : y + height, x : x + width] = picture
        if titles:
            ax.text(x + width / 2, y - 0.03 * height, titles[i], ha="center", va="bottom", fontsize=8, parse_math=False)
    ax.imshow(sheet, interpolation="nearest")
    ax.set_axis_off()
    if caption:
        ax.set_title(caption, fontsize=10, parse_math=False)
    return ax


def show_maps(
    ax: "Axes",
    picture: Image,
    maps: Mapping[str, Float[np.ndarray, "g g"]],
    *,
    columns: int | None = None,
    caption: str = "",
) -> "Axes":
    """A picture and maps over it, each scaled by itself, with its name above, in one row without `columns`: a map with
    values below zero in two colours around grey, any other from its smallest value on.
    """
    panels = [
        signed_overlay(picture, heat) if heat.min() < 0 else overlay(picture, heat - heat.min(), PALETTE[3])
        for heat in maps.values()
    ]
    titles = ["picture", *maps]
    return show_images(ax, [picture, *panels], columns=columns or len(titles), titles=titles, caption=caption)
