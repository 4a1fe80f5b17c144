"""The architecture of the embedded backbone, and where its weights lie."""

from pathlib import Path

import torch
from jaxtyping import Float
from safetensors.torch import save_file
from torch import Tensor, nn

from qpm_lib.backbones.torchvision import import_torchvision
from qpm_lib.core import write_atomically

TOY_WEIGHTS = Path(__file__).parent.parent / "assets" / "toy_vit.safetensors"


def _sin_cos_positions(grid: int, width: int) -> Float[Tensor, "1 patches width"]:
    frequency = 1000 ** (-torch.arange(width // 4) / (width // 4))
    y, x = torch.meshgrid(torch.arange(grid), torch.arange(grid), indexing="ij")
    down, across = y.flatten()[:, None] * frequency, x.flatten()[:, None] * frequency
    return torch.cat([down.sin(), down.cos(), across.sin(), across.cos()], 1)[None]


def build_toy_vit() -> nn.Module:
    """The architecture of the embedded backbone with random weights: width 192, depth 6, 3 heads, patch 8, 4 registers,
    2.7 M parameters.
    """
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
