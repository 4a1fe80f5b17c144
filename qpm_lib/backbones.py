"""Frozen backbones by name: pictures in, patch tokens and the CLS token out.

All of them are timm models. `toy` is the small vision transformer embedded in this package (renderer-supervised, see
`qpm_lib/pretraining.py`); DINO (Caron et al., 2021), DINOv2 (Oquab et al., 2023; with registers: Darcet et al., 2024) and DINOv3 (Simeoni
et al., 2025) give the tokens of the official code at every input size; `resnet50` is the convolutional baseline, whose patches are the
cells of its last feature map and whose CLS token is their mean.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from qpm_lib._torchvision import import_torchvision
from qpm_lib.artifacts import write_atomically
from qpm_lib.registry import BACKBONES, BackboneEntry
from qpm_lib.seeding import choose_device

TOY_WEIGHTS = Path(__file__).parent / "assets" / "toy_vit.safetensors"


class Tokens(NamedTuple):
    """Output of a backbone after its final norm, where it has one; register tokens are dropped."""

    patches: Float[Tensor, "batch patches dim"]
    cls: Float[Tensor, "batch dim"]


def _sin_cos_positions(grid: int, width: int) -> Float[Tensor, "1 patches width"]:
    frequency = 1000 ** (-torch.arange(width // 4) / (width // 4))
    y, x = torch.meshgrid(torch.arange(grid), torch.arange(grid), indexing="ij")
    down, across = y.flatten()[:, None] * frequency, x.flatten()[:, None] * frequency
    return torch.cat([down.sin(), down.cos(), across.sin(), across.cos()], 1)[None]


def build_toy_vit() -> nn.Module:
    """The architecture of the embedded backbone with random weights: width 192, depth 6, 3 heads, patch 8, 4 registers, 2.7 M parameters."""
    import_torchvision()
    from timm.models import VisionTransformer

    vit = VisionTransformer(
        img_size=128,
        patch_size=8,
        embed_dim=192,
        depth=6,
        num_heads=3,
        reg_tokens=4,
        no_embed_class=True,
        init_values=1.0,
        num_classes=0,
        global_pool="token",
    )
    for module in vit.modules():
        if isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
    vit.pos_embed.data = _sin_cos_positions(16, 192)
    return vit


def save_weights(vit: nn.Module, path: Path) -> None:
    """Write a state dict as fp16 safetensors, atomically."""
    state = {name: tensor.detach().half().contiguous().cpu() for name, tensor in vit.state_dict().items()}
    write_atomically(path, lambda temporary: save_file(state, temporary))


def _read_state(path: Path) -> dict[str, Tensor]:
    """State dict of a safetensors or `.pth` file; nothing in the file is executed."""
    if not path.is_file():
        raise ValueError(f"backbone.weights (={str(path)!r}) does not exist or is no file")
    try:
        state = load_file(path) if path.suffix == ".safetensors" else torch.load(path, map_location="cpu", weights_only=True)
        state = state.get("model", state)
        if not all(isinstance(tensor, Tensor) for tensor in state.values()):
            raise TypeError("it holds something else than named tensors")
    except Exception as error:  # a file from anywhere can fail in any way
        detail = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(
            f"{path} cannot be read as weights ({detail}): an official .pth file or safetensors with tensors only is needed"
        ) from error
    return state


def _load_checked(vit: nn.Module, state: dict[str, Tensor], source: Path, name: str) -> None:
    expected = vit.state_dict()
    missing, extra = sorted(set(expected) - set(state)), sorted(set(state) - set(expected))
    if missing or extra:
        raise ValueError(
            f"{source} does not fit backbone {name!r}: {len(missing)} tensors missing (first {missing[:1]}), {len(extra)} unknown (first {extra[:1]})"
        )
    for key, tensor in expected.items():
        if tensor.shape != state[key].shape:
            raise ValueError(f"{source} does not fit backbone {name!r}: {key} is {tuple(state[key].shape)}, {tuple(tensor.shape)} expected")
    vit.load_state_dict({key: tensor.float() for key, tensor in state.items()})


def _official_positions(embedding: Float[Tensor, "1 tokens dim"], grid: int, offset: float) -> Float[Tensor, "1 resized dim"]:
    """Position embedding (CLS token first) on another grid, as the code of DINO and DINOv2 without registers does it.

    The scale is (grid + offset) / trained grid, bicubic, without antialiasing (https://github.com/facebookresearch/dinov2,
    `interpolate_pos_encoding`); timm antialiases, which moves tokens by up to 0.8.
    """
    side = round((embedding.shape[1] - 1) ** 0.5)
    if side == grid:
        return embedding
    patches = rearrange(embedding[:, 1:], "1 (y x) d -> 1 d y x", y=side)
    resized = F.interpolate(patches, scale_factor=(grid + offset) / side, mode="bicubic")
    return torch.cat([embedding[:, :1], rearrange(resized, "1 d y x -> 1 (y x) d")], 1)


def _set_size(vit: nn.Module, entry: BackboneEntry, image_size: int) -> nn.Module:
    """Bring a transformer from the size of its weights to the wanted one."""
    if image_size == (entry.trained_size or entry.image_size):
        return vit
    trained = vit.pos_embed.data if entry.offset is not None else None
    vit.set_input_size(img_size=(image_size, image_size))
    if trained is not None:
        vit.pos_embed.data = _official_positions(trained, image_size // entry.patch_size, entry.offset)
    return vit


def _build(name: str, weights: Path | None, image_size: int) -> nn.Module:
    entry = BACKBONES[name]
    if name == "toy":
        vit, source = build_toy_vit(), weights or TOY_WEIGHTS
        _load_checked(vit, _read_state(source), source, name)
        return vit
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
                f"the weights of {name} could not be downloaded ({type(error).__name__}): download them elsewhere and set backbone.weights=<file>"
            ) from error
        return vit if name == "resnet50" else _set_size(vit, entry, image_size)
    vit, state = timm.create_model(entry.architecture, pretrained=False, **options), _read_state(weights)
    if name == "resnet50":
        _load_checked(vit, {key: tensor for key, tensor in state.items() if not key.startswith("fc.")}, weights, name)
        return vit
    _load_checked(vit, _in_timm_layout(state, vit, weights, name), weights, name)
    return _set_size(vit, entry, image_size)


def _in_timm_layout(state: dict[str, Tensor], vit: nn.Module, source: Path, name: str) -> dict[str, Tensor]:
    """Official names of the weights translated to timm's; weights in timm's own layout stay as they are."""
    from timm.models import eva, vision_transformer

    if set(state) == set(vit.state_dict()):
        return state
    entry = BACKBONES[name]
    tokens = 1 + (entry.trained_size // entry.patch_size) ** 2
    wanted = {"patch_embed.proj.weight": (-1, entry.patch_size)} | ({"pos_embed": (1, tokens)} if entry.trained_size else {})
    for key, (axis, length) in wanted.items():  # timm would resize these, and the tokens would not be those of the weights
        if key not in state or state[key].shape[axis] != length:
            found = tuple(state[key].shape) if key in state else "missing"
            raise ValueError(f"{source} does not fit backbone {name!r}: {key} is {found}, axis {axis} must be {length}")
    translate = eva.checkpoint_filter_fn if name.startswith("dinov3") else vision_transformer.checkpoint_filter_fn
    try:
        return translate(state, vit)
    except (KeyError, RuntimeError, AttributeError, ValueError) as error:
        raise ValueError(f"{source} does not fit backbone {name!r} ({error})") from error


def weights_at_hand(name: str) -> str:
    """Where the weights of a backbone would come from: `embedded`, `downloaded`, or `to download`."""
    if name == "toy":
        return "embedded"
    import_torchvision()
    import timm
    from huggingface_hub import try_to_load_from_cache

    repository = timm.get_pretrained_cfg(BACKBONES[name].architecture).hf_hub_id
    found = (try_to_load_from_cache(repository, file) for file in ("model.safetensors", "pytorch_model.bin"))
    return "downloaded" if any(isinstance(path, str) for path in found) else "to download"


def state_hash(state: Mapping[str, Tensor]) -> str:
    """SHA-256 over names and values of a state dict, independent of the file format."""
    digest = hashlib.sha256()
    for key in sorted(state):
        digest.update(key.encode())
        digest.update(state[key].detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


@dataclass(frozen=True)
class Preprocessing:
    """From pictures to normalised tensors; small, because worker processes get a copy, and without a GPU."""

    image_size: int
    aspect: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def square(self, image: Image.Image, side: int | None = None) -> Image.Image:
        """The square that the backbone sees of a picture."""
        if self.aspect == "crop":
            short = min(image.size)
            left, top = (image.width - short) // 2, (image.height - short) // 2
            image = image.crop((left, top, left + short, top + short))
        size = side or self.image_size
        return image if image.size == (size, size) else image.resize((size, size), Image.Resampling.BICUBIC)

    def __call__(self, images: Sequence[Image.Image]) -> Float[Tensor, "batch 3 size size"]:
        """Squares, scaled to 0..1 and normalised."""
        pixels = np.stack([np.asarray(self.square(image)) for image in images])
        scaled = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255
        mean, std = (torch.tensor(part)[:, None, None] for part in (self.mean, self.std))
        return (scaled - mean) / std


class FrozenBackbone(nn.Module):
    """A vision transformer or convolutional network in evaluation mode, without gradients, with its own preprocessing.

    Attributes
    ----------
    name : its name in `BACKBONES`. width : D. grid : g, with P = g * g patches. image_size : input side in pixels.
    fingerprint : name, hash of the weights and preprocessing; two backbones with equal fingerprints give equal features.
    """

    def __init__(self, name: str, vit: nn.Module, *, image_size: int, aspect: str = "squash") -> None:
        super().__init__()
        entry = BACKBONES[name]
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
        }

    def train(self, mode: bool = True) -> "FrozenBackbone":
        """A frozen backbone stays in evaluation mode whatever its container does."""
        return super().train(False)

    def preprocess(self, images: Sequence[Image.Image]) -> Float[Tensor, "batch 3 size size"]:
        """Resize to the input size (`squash`: both sides; `crop`: the central square), bicubic, scale to 0..1, normalise."""
        return self.preprocessing(images)

    def square(self, image: Image.Image, side: int | None = None) -> Image.Image:
        """What the backbone sees of a picture, before normalisation; `side` pixels instead of its input size, to be looked at."""
        return self.preprocessing.square(image, side)

    @torch.no_grad()
    def tokens(self, images: Float[Tensor, "batch 3 size size"]) -> Tokens:
        """Patch tokens (B, P, D) and CLS token (B, D), of a transformer after the final LayerNorm, in float32; autocast to bf16 on a GPU.

        Raises
        ------
        ValueError : when the pictures do not have the backbone's input size.
        """
        if images.shape[-2:] != (self.image_size, self.image_size):
            raise ValueError(
                f"pictures of {tuple(images.shape[-2:])} pixels do not fit backbone {self.name} (={self.image_size}): use backbone.preprocess"
            )
        device = next(self.network.parameters()).device
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            out = self.network.forward_features(images.to(device))
        if out.ndim == 4:
            patches = rearrange(out.float(), "b d y x -> b (y x) d")
            return Tokens(patches, patches.mean(1))
        return Tokens(out[:, self.n_prefix :].float(), out[:, 0].float())

    def token_grid(self, patches: Float[Tensor, "batch patches dim"]) -> Float[Tensor, "batch dim g g"]:
        """Patch tokens laid out as the picture."""
        return rearrange(patches, "b (y x) d -> b d y x", y=self.grid)


def load_backbone(
    name: str,
    *,
    weights: str | Path | None = None,
    image_size: int | None = None,
    device: str | torch.device | None = None,
    aspect: str = "squash",
) -> FrozenBackbone:
    """Load a frozen backbone.

    Parameters
    ----------
    name : a key of `BACKBONES`.
    weights : an official `.pth` or `.safetensors` file; None takes the embedded weights (toy) or downloads them.
    image_size : input side in pixels, a multiple of the patch size; None or 0 is the backbone's own.

    Raises
    ------
    ValueError : for an unknown name, a size that does not fit, unreadable or unfitting weights, or a failed download.
    """
    if name not in BACKBONES:
        raise ValueError(f"unknown backbone {name!r}: choose from {', '.join(BACKBONES)}")
    if aspect not in ("squash", "crop"):
        raise ValueError(f"backbone.aspect (={aspect!r}) must be squash or crop")
    if (image_size or 0) < 0:
        raise ValueError(f"backbone.image_size (={image_size}) must be a number of pixels, or 0 for the backbone's own")
    size = image_size or BACKBONES[name].image_size
    if name == "toy" and size != BACKBONES[name].image_size:
        raise ValueError(f"backbone.image_size (={size}) must be 128 for the toy backbone")
    patch = BACKBONES[name].patch_size
    if size % patch:
        raise ValueError(f"backbone.image_size (={size}) must be a multiple of the patch size (={patch})")
    vit = _build(name, Path(weights) if weights else None, size)
    target = choose_device(device) if isinstance(device, str) else device or torch.device("cpu")
    return FrozenBackbone(name, vit, image_size=size, aspect=aspect).to(target)
