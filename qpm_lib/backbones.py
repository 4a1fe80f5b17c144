"""Frozen backbones by name: pictures in, patch tokens and the CLS token out.

All of them are timm models. `toy` is the small vision transformer embedded in this package (renderer-supervised, see
`qpm_lib/pretraining.py`); the DINOv2 models with registers are the official ones (Oquab et al., 2023; Darcet et al., 2024); `resnet50` is
the convolutional baseline, whose patches are the cells of its last feature map and whose CLS token is their mean.
"""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from einops import rearrange
from jaxtyping import Float
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from qpm_lib._torchvision import import_torchvision
from qpm_lib.artifacts import write_atomically
from qpm_lib.seeding import choose_device

TOY_MEAN, TOY_STD = 0.42, 0.22
TOY_WEIGHTS = Path(__file__).parent / "assets" / "toy_vit.safetensors"
_IMAGENET_MEAN, _IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class BackboneEntry(NamedTuple):
    """What the registry knows of a backbone: its timm architecture, native input size and patch size in pixels, and normalisation."""

    architecture: str
    image_size: int
    patch_size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


BACKBONES: Mapping[str, BackboneEntry] = {
    "toy": BackboneEntry("", 128, 8, (TOY_MEAN,) * 3, (TOY_STD,) * 3),
    **{
        f"dinov2_vit{letter}14_reg": BackboneEntry(f"vit_{size}_patch14_reg4_dinov2.lvd142m", 224, 14, _IMAGENET_MEAN, _IMAGENET_STD)
        for letter, size in (("s", "small"), ("b", "base"), ("l", "large"))
    },
    "resnet50": BackboneEntry("resnet50.tv_in1k", 224, 32, _IMAGENET_MEAN, _IMAGENET_STD),
}


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


def _build(name: str, weights: Path | None, image_size: int) -> nn.Module:
    entry = BACKBONES[name]
    if name == "toy":
        vit, source = build_toy_vit(), weights or TOY_WEIGHTS
        _load_checked(vit, _read_state(source), source, name)
        return vit
    import_torchvision()
    import timm

    options: dict[str, Any] = {"num_classes": 0} if name == "resnet50" else {"img_size": image_size, "num_classes": 0}
    if weights is None:
        try:
            return timm.create_model(entry.architecture, pretrained=True, **options)
        except (OSError, RuntimeError) as error:
            raise ValueError(
                f"the weights of {name} could not be downloaded ({type(error).__name__}): download them elsewhere and set backbone.weights=<file>"
            ) from error
    from timm.models.vision_transformer import checkpoint_filter_fn

    vit, state = timm.create_model(entry.architecture, pretrained=False, **options), _read_state(weights)
    if name == "resnet50":
        _load_checked(vit, {key: tensor for key, tensor in state.items() if not key.startswith("fc.")}, weights, name)
        return vit
    try:
        state = checkpoint_filter_fn(state, vit)
    except (KeyError, RuntimeError, AttributeError) as error:
        raise ValueError(f"{weights} does not fit backbone {name!r} ({error})") from error
    _load_checked(vit, state, weights, name)
    return vit


def state_hash(state: Mapping[str, Tensor]) -> str:
    """SHA-256 over names and values of a state dict, independent of the file format."""
    digest = hashlib.sha256()
    for key in sorted(state):
        digest.update(key.encode())
        digest.update(state[key].detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


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
        # Plain tensors, not buffers: preprocessing runs in worker processes, which must not touch a GPU.
        self.mean, self.std = torch.tensor(entry.mean)[:, None, None], torch.tensor(entry.std)[:, None, None]
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
        """Resize to the input size (`squash`: both sides; `crop`: shorter side, then the centre), scale to 0..1, normalise."""
        import_torchvision()
        from torchvision.transforms.v2 import functional as transforms

        batch = []
        for image in images:
            if self.aspect == "crop":
                image = transforms.center_crop(
                    transforms.resize(image, [self.image_size], transforms.InterpolationMode.BICUBIC), [self.image_size] * 2
                )
            elif image.size != (self.image_size, self.image_size):
                image = transforms.resize(image, [self.image_size] * 2, transforms.InterpolationMode.BICUBIC)
            batch.append(transforms.to_dtype(transforms.pil_to_tensor(image), torch.float32, scale=True))
        return (torch.stack(batch) - self.mean) / self.std

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
    size = image_size or BACKBONES[name].image_size
    if name == "toy" and size != BACKBONES[name].image_size:
        raise ValueError(f"backbone.image_size (={size}) must be 128 for the toy backbone")
    patch = BACKBONES[name].patch_size
    if size % patch:
        raise ValueError(f"backbone.image_size (={size}) must be a multiple of the patch size (={patch})")
    vit = _build(name, Path(weights) if weights else None, size)
    target = choose_device(device) if isinstance(device, str) else device or torch.device("cpu")
    return FrozenBackbone(name, vit, image_size=size, aspect=aspect).to(target)
