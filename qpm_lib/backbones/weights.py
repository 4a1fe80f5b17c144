"""Weights of backbones: read safely, checked, translated to timm's layout, brought to another input size."""

import hashlib
from collections.abc import Mapping
from pathlib import Path

import torch
from einops import rearrange
from jaxtyping import Float
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from qpm_lib.backbones.registry import BACKBONES, BackboneEntry
from qpm_lib.backbones.torchvision import import_torchvision


def read_state(path: Path) -> dict[str, Tensor]:
    """State dict of a safetensors or `.pth` file; nothing in the file is executed."""
    if not path.is_file():
        raise ValueError(f"backbone.weights (={str(path)!r}) does not exist or is no file")
    try:
        state = (
            load_file(path)
            if path.suffix == ".safetensors"
            else torch.load(path, map_location="cpu", weights_only=True)
        )
        state = state.get("model", state)
        if not all(isinstance(tensor, Tensor) for tensor in state.values()):
            raise TypeError("it holds something else than named tensors")
    except Exception as error:  # a file from anywhere can fail in any way
        detail = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(
            f"{path} cannot be read as weights ({detail}): an official .pth file or safetensors with tensors only is "
            "needed"
        ) from error
    return state


def load_checked(vit: nn.Module, state: dict[str, Tensor], source: Path, name: str) -> None:
    """Fill a transformer with weights; ValueError where names or shapes are those of another architecture."""
    expected = vit.state_dict()
    missing, extra = sorted(set(expected) - set(state)), sorted(set(state) - set(expected))
    if missing or extra:
        raise ValueError(
            f"{source} does not fit backbone {name!r}: {len(missing)} tensors missing (first {missing[:1]}), "
            f"{len(extra)} unknown (first {extra[:1]})"
        )
    for key, tensor in expected.items():
        if tensor.shape != state[key].shape:
            raise ValueError(
                f"{source} does not fit backbone {name!r}: {key} is {tuple(state[key].shape)}, "
                f"{tuple(tensor.shape)} expected"
            )
    vit.load_state_dict({key: tensor.float() for key, tensor in state.items()})


def _official_positions(
    embedding: Float[Tensor, "1 tokens dim"], grid: int, offset: float
) -> Float[Tensor, "1 resized dim"]:
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


def set_size(vit: nn.Module, entry: BackboneEntry, image_size: int) -> nn.Module:
    """Bring a transformer from the size of its weights to the wanted one."""
    if image_size == (entry.trained_size or entry.image_size):
        return vit
    trained = vit.pos_embed.data if entry.offset is not None else None
    vit.set_input_size(img_size=(image_size, image_size))
    if trained is not None:
        vit.pos_embed.data = _official_positions(trained, image_size // entry.patch_size, entry.offset)
    return vit


def in_timm_layout(state: dict[str, Tensor], vit: nn.Module, source: Path, name: str) -> dict[str, Tensor]:
    """Official names of the weights translated to timm's; weights in timm's own layout stay as they are."""
    from timm.models import eva, vision_transformer

    if set(state) == set(vit.state_dict()):
        return state
    entry = BACKBONES[name]
    tokens = 1 + (entry.trained_size // entry.patch_size) ** 2
    wanted = {"patch_embed.proj.weight": (-1, entry.patch_size)} | (
        {"pos_embed": (1, tokens)} if entry.trained_size else {}
    )
    for key, (
        axis,
        length,
    ) in wanted.items():  # timm would resize these, and the tokens would not be those of the weights
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
