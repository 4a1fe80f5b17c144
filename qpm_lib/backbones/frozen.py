"""Frozen backbones by name: pictures in, patch tokens and the CLS token out.

All of them are timm models. `toy` is the small vision transformer embedded in this package (renderer-supervised, see
`backbones/pretraining.py`); DINO (Caron et al., 2021), DINOv2 (Oquab et al., 2023; with registers: Darcet et al., 2024)
and DINOv3 (Simeoni et al., 2025) give the tokens of the official code at every input size; `resnet50` is the
convolutional baseline, whose patches are the cells of its last feature map and whose CLS token is their mean.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from einops import rearrange
from jaxtyping import Float
from PIL import Image
from torch import Tensor, nn

from qpm_lib.backbones.preprocessing import Preprocessing
from qpm_lib.backbones.registry import BACKBONES
from qpm_lib.backbones.torchvision import import_torchvision
from qpm_lib.backbones.toy_vit import TOY_WEIGHTS, build_toy_vit
from qpm_lib.backbones.weights import in_timm_layout, load_checked, read_state, set_size, state_hash
from qpm_lib.core import choose_device, mixed_precision, move


class Tokens(NamedTuple):
    """Output of a backbone after its final norm, where it has one; register tokens are dropped."""

    patches: Float[Tensor, "batch patches dim"]
    cls: Float[Tensor, "batch dim"]


def _build(name: str, weights: Path | None, image_size: int) -> nn.Module:
    entry = BACKBONES[name]
    if name == "toy":
        vit, source = build_toy_vit(), weights or TOY_WEIGHTS
        load_checked(vit, read_state(source), source, name)
        return set_size(vit, entry, image_size)
    import_torchvision()
    import timm

    options: dict[str, Any] = {"num_classes": 0}
    if name != "resnet50":
        options["img_size"] = entry.trained_size or entry.image_size
    if weights is None:
        try:
            vit = timm.create_model(entry.architecture, pretrained=True, **options)
        except (OSError, RuntimeError) as error:
            raise ValueError(
                f"the weights of {name} could not be downloaded ({type(error).__name__}): "
                "download them elsewhere and give the file (backbone.weights=<file>, --weights <file>)"
            ) from error
        return vit if name == "resnet50" else set_size(vit, entry, image_size)
    vit, state = timm.create_model(entry.architecture, pretrained=False, **options), read_state(weights)
    if name == "resnet50":
        load_checked(vit, {key: tensor for key, tensor in state.items() if not key.startswith("fc.")}, weights, name)
        return vit
    load_checked(vit, in_timm_layout(state, vit, weights, name), weights, name)
    return set_size(vit, entry, image_size)


class FrozenBackbone(nn.Module):
    """A vision transformer or convolutional network in evaluation mode, without gradients, with its own preprocessing.

    Attributes
    ----------
    name : its name in `BACKBONES`. width : D. grid : g, with P = g * g patches. image_size : input side in pixels.
    fingerprint : name, hash of the weights, preprocessing and depth (see `load_backbone`), where it is not the whole;
        two backbones with equal fingerprints give equal features.

    Raises
    ------
    ValueError : for a vision transformer without a CLS token.
    """

    def __init__(self, name: str, vit: nn.Module, *, image_size: int, aspect: str = "squash", depth: int = 0) -> None:
        super().__init__()
        entry = BACKBONES[name]
        if hasattr(vit, "num_prefix_tokens") and getattr(vit, "cls_token", None) is None:
            raise ValueError(f"the transformer of backbone {name} has no CLS token: choose an architecture with one")
        if depth:
            vit.blocks = vit.blocks[:depth]
        self.name, self.image_size, self.aspect = name, image_size, aspect
        self.network = vit.eval().requires_grad_(False)
        self.width = int(vit.num_features)
        self.n_prefix = int(getattr(vit, "num_prefix_tokens", 0))
        self.grid = image_size // entry.patch_size
        self.preprocessing = Preprocessing(image_size, aspect, entry.mean, entry.std)
        self.fingerprint = {
            "backbone": name,
            "weights_sha256": state_hash(vit.state_dict()),
            "image_size": image_size,
            "aspect": aspect,
            "resize": "bicubic",
            "mean": list(entry.mean),
            "std": list(entry.std),
            **({"depth": depth} if depth else {}),
        }

    def train(self, mode: bool = True) -> "FrozenBackbone":
        """A frozen backbone stays in evaluation mode whatever its container does."""
        return super().train(False)

    def preprocess(self, images: Sequence[Image.Image]) -> Float[Tensor, "batch 3 size size"]:
        """Resize to the input size (`squash`: both sides; `crop`: the central square), bicubic, scale to 0..1,
        normalise.
        """
        return self.preprocessing(images)

    def square(self, image: Image.Image, side: int | None = None) -> Image.Image:
        """What the backbone sees of a picture, before normalisation; `side` pixels instead of its input size,
        to be looked at.
        """
        return self.preprocessing.square(image, side)

    @property
    def is_transformer(self) -> bool:
        """Whether it has tokens on its way, and attention."""
        return self.n_prefix > 0

    @property
    def blocks(self) -> Sequence[nn.Module]:
        """Blocks of a transformer, or the four stages of a ResNet."""
        network = self.network
        return list(network.blocks if self.is_transformer else (getattr(network, f"layer{i}") for i in range(1, 5)))

    def forward(self, images: Float[Tensor, "batch 3 size size"]) -> Tokens:
        """As `tokens`, in float32 everywhere, and with gradients where the pictures or a tap ask for them.

        Raises
        ------
        ValueError : when the pictures do not have the backbone's input size.
        """
        if images.shape[-2:] != (self.image_size, self.image_size):
            raise ValueError(
                f"pictures of {tuple(images.shape[-2:])} pixels do not fit backbone {self.name} (={self.image_size}): "
                "use backbone.preprocess"
            )
        return self.split(self.network.forward_features(move(images, next(self.network.parameters()).device)))

    def split(self, out: Float[Tensor, "..."]) -> Tokens:
        """Patch tokens and CLS token of what comes out at the end: (B, T, D) of a transformer, (B, D, h, w) of a
        ResNet.
        """
        if out.ndim == 4:
            patches = rearrange(out.float(), "b d y x -> b (y x) d")
            return Tokens(patches, patches.mean(1))
        return Tokens(out[:, self.n_prefix :].float(), out[:, 0].float())

    @torch.no_grad()
    def tokens(self, images: Float[Tensor, "batch 3 size size"]) -> Tokens:
        """Patch tokens (B, P, D) and CLS token (B, D), of a transformer after the final LayerNorm, in float32;
        autocast to bf16 on a GPU.

        Raises
        ------
        ValueError : when the pictures do not have the backbone's input size.
        """
        with mixed_precision(next(self.network.parameters()).device):
            return self(images)

    def token_grid(self, patches: Float[Tensor, "batch patches dim"]) -> Float[Tensor, "batch dim g g"]:
        """Patch tokens laid out as the picture."""
        return rearrange(patches, "b (y x) d -> b d y x", y=self.grid)


def check_backbone(
    name: str, *, weights: str | Path | None = None, image_size: int | None = None, depth: int = 0
) -> int:
    """Check what can be checked of the arguments of `load_backbone` without loading anything; the input size in pixels.

    Raises
    ------
    ValueError : for an unknown name, a size or depth that does not fit, or a file of weights that is not there.
    """
    if name not in BACKBONES:
        raise ValueError(f"unknown backbone {name!r}: choose from {', '.join(BACKBONES)}")
    if weights and not Path(weights).is_file():
        raise ValueError(f"backbone.weights (={str(weights)!r}) does not exist or is no file")
    if (image_size or 0) < 0:
        raise ValueError(f"backbone.image_size (={image_size}) must be a number of pixels, or 0 for the backbone's own")
    size, patch = image_size or BACKBONES[name].image_size, BACKBONES[name].patch_size
    if size % patch:
        raise ValueError(f"backbone.image_size (={size}) must be a multiple of the patch size (={patch})")
    blocks = BACKBONES[name].blocks
    if depth and not 0 < depth <= blocks:
        has = f"has {blocks} transformer blocks" if blocks else "is no transformer"
        raise ValueError(
            f"backbone.depth (={depth}) does not fit {name}, which {has}: 0 takes what comes out at its end"
        )
    return size


def load_backbone(
    name: str,
    *,
    weights: str | Path | None = None,
    image_size: int | None = None,
    device: str | torch.device | None = None,
    aspect: str = "squash",
    depth: int = 0,
) -> FrozenBackbone:
    """Load a frozen backbone.

    Parameters
    ----------
    name : a key of `BACKBONES`.
    weights : an official `.pth` or `.safetensors` file; None takes the embedded weights (toy) or downloads them.
    image_size : input side in pixels, a multiple of the patch size; None or 0 is the backbone's own.
    depth : take tokens after this many blocks (and the final norm) of a transformer; 0 is all of them. Earlier tokens
        have seen less of the rest of the picture, and know less of what the picture shows.

    Raises
    ------
    ValueError : for an unknown name, a size or depth that does not fit, unreadable or unfitting weights, or a failed
        download.
    """
    size = check_backbone(name, weights=weights, image_size=image_size, depth=depth)
    if aspect not in ("squash", "crop"):
        raise ValueError(f"backbone.aspect (={aspect!r}) must be squash or crop")
    vit = _build(name, Path(weights) if weights else None, size)
    target = choose_device(device) if isinstance(device, str) else device or torch.device("cpu")
    return FrozenBackbone(name, vit, image_size=size, aspect=aspect, depth=depth).to(target)


def random_backbone(name: str, *, seed: int = 0) -> FrozenBackbone:
    """The architecture of a backbone with random weights: what it does before it has seen a picture.

    Raises
    ------
    ValueError : for an unknown name.
    """
    size = check_backbone(name)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        if name == "toy":
            return FrozenBackbone(name, build_toy_vit(), image_size=size)
        import_torchvision()
        import timm

        options = {} if name == "resnet50" else {"img_size": size}
        network = timm.create_model(BACKBONES[name].architecture, pretrained=False, num_classes=0, **options)
    return FrozenBackbone(name, network, image_size=size)
