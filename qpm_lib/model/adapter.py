"""From frozen tokens to interpretable features: the token-wise MLP, pooling, and the dense model (method of DINO-QPM,
arXiv 2604.07166).
"""

from dataclasses import asdict
from itertools import pairwise
from typing import NamedTuple

import torch
from einops import rearrange, reduce
from jaxtyping import Float, Int
from torch import Tensor, nn

from qpm_lib.core import AdapterConfig


class Output(NamedTuple):
    """What every classifier of this package returns.

    `maps` (B, F, g, g) are the feature maps, `vector` (B, F) the pooled features, `logits` (B, C) the class scores.
    Where patches were taken away, maps have one row of those that are left.
    """

    maps: Float[Tensor, "batch features h w"]
    vector: Float[Tensor, "batch features"]
    logits: Float[Tensor, "batch classes"]


def map_height(patches: int) -> int:
    """Rows of a map of so many patches: g for a square picture, 1 where patches were taken away."""
    grid = round(patches**0.5)
    return grid if grid**2 == patches else 1


class Adapter(nn.Module):
    """The same MLP for every token: `n_layers` times Linear, BatchNorm over all tokens of a batch, ReLU,
    the last layer included.
    """

    def __init__(self, width: int, config: AdapterConfig) -> None:
        super().__init__()
        widths = [width] + [config.hidden] * (config.n_layers - 1) + [config.n_features]
        layers: list[nn.Module] = []
        for inputs, outputs in pairwise(widths):
            layers += [nn.Linear(inputs, outputs), nn.BatchNorm1d(outputs), nn.ReLU(inplace=True)]
        self.width, self.config = width, config
        self.layers = nn.Sequential(*layers)

    def forward(self, tokens: Float[Tensor, "batch tokens dim"]) -> Float[Tensor, "batch tokens features"]:
        """Non-negative features of every token."""
        return rearrange(self.layers(rearrange(tokens, "b t d -> (b t) d")), "(b t) f -> b t f", b=len(tokens))

    def features(
        self, patches: Float[Tensor, "batch patches dim"], cls: Float[Tensor, "batch dim"]
    ) -> tuple[Float[Tensor, "batch features h w"], Float[Tensor, "batch features"]]:
        """Feature maps M (B, F, g, g) and the pooled vector f (B, F); the CLS token passes through the MLP only where
        pooling uses it.
        """
        pooling = self.config.pooling
        uses_cls = pooling in ("cls", "cls_avg")
        out = self(torch.cat([cls[:, None], patches], 1) if uses_cls else patches)
        on_patches = out[:, 1:] if uses_cls else out
        maps = rearrange(on_patches, "b (y x) f -> b f y x", y=map_height(on_patches.shape[1]))
        precision = torch.promote_types(out.dtype, torch.float32)  # a mean in bf16 is not what its map adds up to
        average = on_patches.mean(1, dtype=precision)
        vector = {
            "avg": lambda: average,
            "max": lambda: reduce(on_patches, "b p f -> b f", "max"),
            "cls": lambda: out[:, 0],
            "cls_avg": lambda: (out[:, 0] + average) / 2,
        }[pooling]()
        return maps, vector

    def keep(self, features: Int[Tensor, "n"]) -> "Adapter":
        """A copy whose last layer computes only some of the features, in the order given."""
        small = Adapter(self.width, AdapterConfig(**{**asdict(self.config), "n_features": len(features)}))
        state = {name: tensor.clone() for name, tensor in self.state_dict().items()}
        last = 3 * (self.config.n_layers - 1)
        for name, tensor in state.items():
            if int(name.split(".")[1]) >= last and tensor.ndim:
                state[name] = tensor[features.to(tensor.device)]
        small.load_state_dict(state)
        return small.to(self.layers[0].weight.device).train(self.training)
