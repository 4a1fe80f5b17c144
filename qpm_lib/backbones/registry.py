"""The backbones there are: names, sizes, normalisation, licences.

A vision transformer of timm with a CLS token needs an entry and nothing else; another family also `_build` in
`frozen.py` and the translation of its official weights in `weights.py`.
"""

from collections.abc import Mapping
from typing import NamedTuple

TOY_MEAN, TOY_STD = 0.42, 0.22
_IMAGENET_MEAN, _IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class BackboneEntry(NamedTuple):
    """What the registry knows of a backbone.

    `architecture` is its timm name, `image_size` the default input side; sizes are in pixels, `width` is D, `blocks`
    the number of transformer blocks (0 for a convolutional network), `parameters` in millions, `licence` that of the
    weights. `trained_size` is the input side of the position embedding in the weights, 0 where it is not resized;
    `offset` what the official code adds to the new grid before resizing it, None where timm's way is the official one.
    """

    architecture: str
    image_size: int
    patch_size: int
    width: int
    blocks: int
    registers: int
    parameters: float
    licence: str
    trained_size: int = 0
    offset: float | None = None
    mean: tuple[float, float, float] = _IMAGENET_MEAN
    std: tuple[float, float, float] = _IMAGENET_STD


def _entries() -> dict[str, BackboneEntry]:
    apache, meta = "Apache-2.0", "DINOv3 License (Meta)"
    toy = {"mean": (TOY_MEAN,) * 3, "std": (TOY_STD,) * 3}
    entries = {"toy": BackboneEntry("", 128, 8, 192, 6, 4, 2.7, "MIT", **toy)}
    for letter, size, width, millions in (("s", "small", 384, 21.7), ("b", "base", 768, 85.8)):
        for patch in (16, 8):
            timm_name = f"vit_{size}_patch{patch}_224.dino"
            entries[f"dino_vit{letter}{patch}"] = BackboneEntry(
                timm_name, 224, patch, width, 12, 0, millions, apache, 224, 0.1
            )
    sizes = (
        ("s", "small", 384, 12, 22.1),
        ("b", "base", 768, 12, 86.6),
        ("l", "large", 1024, 24, 304.4),
        ("g", "giant", 1536, 40, 1136.5),
    )
    for letter, size, width, blocks, millions in sizes:
        for suffix, middle, registers, offset in (("", "", 0, 0.1), ("_reg", "_reg4", 4, None)):
            timm_name = f"vit_{size}_patch14{middle}_dinov2.lvd142m"
            name = f"dinov2_vit{letter}14{suffix}"
            entries[name] = BackboneEntry(timm_name, 224, 14, width, blocks, registers, millions, apache, 518, offset)
    sizes = (
        ("s16", "small", 384, 12, 21.6),
        ("s16plus", "small_plus", 384, 12, 28.7),
        ("b16", "base", 768, 12, 85.7),
        ("l16", "large", 1024, 24, 303.1),
    )
    for letter, size, width, blocks, millions in sizes:
        entries[f"dinov3_vit{letter}"] = BackboneEntry(
            f"vit_{size}_patch16_dinov3_qkvb.lvd1689m", 224, 16, width, blocks, 4, millions, meta
        )
    entries["resnet50"] = BackboneEntry("resnet50.tv_in1k", 224, 32, 2048, 0, 0, 23.5, "BSD-3-Clause")
    return entries


BACKBONES: Mapping[str, BackboneEntry] = _entries()
