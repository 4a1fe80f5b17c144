"""From frozen tokens to interpretable features: the token-wise MLP, pooling, and the dense model (method of DINO-QPM, arXiv 2604.07166)."""

from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import torch
from einops import rearrange, reduce
from jaxtyping import Float, Int
from torch import Tensor, nn

from qpm_lib.artifacts import read_json
from qpm_lib.config import AdapterConfig
from qpm_lib.serialisation import load_module, save_module


class Output(NamedTuple):
    """What every classifier of this package returns.

    `maps` (B, F, g, g) are the feature maps, `vector` (B, F) the pooled features, `logits` (B, C) the class scores.
    """

    maps: Float[Tensor, "batch features g g"]
    vector: Float[Tensor, "batch features"]
    logits: Float[Tensor, "batch classes"]


class Adapter(nn.Module):
    """The same MLP for every token: `n_layers` times Linear, BatchNorm over all tokens of a batch, ReLU, the last layer included."""

    def __init__(self, width: int, config: AdapterConfig) -> None:
        super().__init__()
        widths = [width] + [config.hidden] * (config.n_layers - 1) + [config.n_features]
        layers: list[nn.Module] = []
        for inputs, outputs in pairwise(widths):
            layers += [nn.Linear(inputs, outputs), nn.BatchNorm1d(outputs), nn.ReLU()]
        self.width, self.config = width, config
        self.layers = nn.Sequential(*layers)

    def forward(self, tokens: Float[Tensor, "batch tokens dim"]) -> Float[Tensor, "batch tokens features"]:
        """Non-negative features of every token."""
        return rearrange(self.layers(rearrange(tokens, "b t d -> (b t) d")), "(b t) f -> b t f", b=len(tokens))

    def features(
        self, patches: Float[Tensor, "batch patches dim"], cls: Float[Tensor, "batch dim"]
    ) -> tuple[Float[Tensor, "batch features g g"], Float[Tensor, "batch features"]]:
        """Feature maps M (B, F, g, g) and the pooled vector f (B, F); the CLS token passes through the MLP only where pooling uses it."""
        pooling = self.config.pooling
        uses_cls = pooling in ("cls", "cls_avg")
        out = self(torch.cat([cls[:, None], patches], 1) if uses_cls else patches)
        on_patches = out[:, 1:] if uses_cls else out
        grid = round(on_patches.shape[1] ** 0.5)
        maps = rearrange(on_patches, "b (y x) f -> b f y x", y=grid)
        average = reduce(on_patches, "b p f -> b f", "mean")
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


class DenseModel(nn.Module):
    """Adapter, dropout on the feature vector, and a linear class layer with bias over all F features."""

    def __init__(self, width: int, n_classes: int, config: AdapterConfig, dropout: float = 0.0) -> None:
        super().__init__()
        self.adapter = Adapter(width, config)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(config.n_features, n_classes)

    def forward(self, patches: Float[Tensor, "batch patches dim"], cls: Float[Tensor, "batch dim"]) -> Output:
        """Maps, vector and logits."""
        maps, vector = self.adapter.features(patches, cls)
        return Output(maps, vector, self.head(self.dropout(vector)))

    @property
    def class_weight(self) -> Float[Tensor, "classes features"]:
        """Weight of each feature for each class."""
        return self.head.weight

    @property
    def device(self) -> torch.device:
        """Where the parameters live."""
        return self.head.weight.device

    def save(self, folder: Path, *, made_by: str = "") -> None:
        """Write `model.safetensors` and `model.json`. `made_by` is the hash of the settings, checked when the model is loaded."""
        card = {
            "kind": "dense",
            "width": self.adapter.width,
            "n_classes": self.head.out_features,
            "dropout": self.dropout.p,
            "adapter": asdict(self.adapter.config),
        }
        save_module(self, folder, {**card, "made_by": made_by})

    @classmethod
    def load(cls, folder: Path) -> "DenseModel":
        """Read a saved dense model.

        Raises
        ------
        ValueError : when the folder holds none, or its files are damaged.
        """
        if not (folder / "model.json").exists():
            raise ValueError(f"{folder} holds no dense model: run chapter 02 first")
        card = read_json(folder / "model.json")
        model = cls(card["width"], card["n_classes"], AdapterConfig(**card["adapter"]), card["dropout"])
        load_module(model, folder)
        return model.eval()


class LinearProbe(nn.Module):
    """Logistic regression on the frozen CLS token, with the same output as the other models.

    Its local map is the class weight applied to every patch token after the final norm. Nothing trains that map to be local.
    """

    def __init__(self, weight: Float[Tensor, "classes dim"], bias: Float[Tensor, "classes"]) -> None:
        super().__init__()
        self.register_buffer("class_weight", weight)
        self.register_buffer("bias", bias)

    def forward(self, patches: Float[Tensor, "batch patches dim"], cls: Float[Tensor, "batch dim"]) -> Output:
        """Patch tokens as maps, the CLS token as vector, and the logits."""
        grid = round(patches.shape[1] ** 0.5)
        with torch.autocast(cls.device.type, enabled=False):
            return Output(rearrange(patches, "b (y x) d -> b d y x", y=grid), cls, cls.float() @ self.class_weight.T + self.bias)

    @property
    def device(self) -> torch.device:
        """Where the weights live."""
        return self.class_weight.device
