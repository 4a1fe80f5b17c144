"""From clusters of patches to clusters of pixels."""

import warnings

import numpy as np
from einops import rearrange
from jaxtyping import Float, Int
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from qpm_lib.data import to_rgb

_SURE = 0.3


def sharpen(distances: Float[Tensor, "g g k"], image: Image.Image) -> Int[np.ndarray, "h w"]:
    """Labels of every pixel of a picture, drawn along its edges: pixels that are nearer to one cluster than to any
    other by three tenths, after interpolation, are starts, from which a random walker decides about the rest (Grady
    2006; scikit-image). The picture is the square that the backbone sees (`backbone.square`), in any size.
    """
    from skimage.segmentation import random_walker

    pixels = np.asarray(to_rgb(image), np.float64) / 255
    at = rearrange(distances.float(), "y x k -> 1 k y x")
    near = F.interpolate(at, pixels.shape[:2], mode="bicubic", align_corners=False)[0].clamp(min=1e-6)
    two = near.topk(min(2, len(near)), 0, largest=False)
    labels = two.indices[0].numpy()
    sure = ((two.values[1] - two.values[0]) / two.values[1] > _SURE).numpy() if len(near) > 1 else labels == 0
    starts = np.where(sure, labels + 1, 0)
    values = np.unique(starts[sure])  # the walker counts them 1, 2, 3, ...
    if sure.all() or len(values) < 2 or pixels.std() == 0:
        return labels
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The probability range")  # rounding: the larger one decides all the same
        walked = random_walker(pixels, starts, beta=1000, mode="cg_j", channel_axis=-1)
    return np.where(walked > 0, values[walked - 1] - 1, labels)
