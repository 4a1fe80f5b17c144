"""The models that come before the finished one: the dense model, and the linear probe on the CLS token."""

from dataclasses import asdict
from pathlib import Path

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from qpm_lib.core import AdapterConfig, full_precision, read_json
from qpm_lib.model.adapter import Adapter, Output, map_height
from qpm_lib.model.files import load_module, save_module


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
        """Write `model.safetensors` and `model.json`. `made_by` is the hash of the settings,
        checked when the model is loaded.
        """
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

    Its local map is the class weight applied to every patch token after the final norm. Nothing trains that map to be
    local.
    """

    def __init__(self, weight: Float[Tensor, "classes dim"], bias: Float[Tensor, "classes"]) -> None:
        super().__init__()
        self.register_buffer("weight", weight)
        self.register_buffer("bias", bias)

    def forward(self, patches: Float[Tensor, "batch patches dim"], cls: Float[Tensor, "batch dim"]) -> Output:
        """Patch tokens as maps, the CLS token as vector, and the logits."""
        with full_precision(cls.device):
            return Output(
                rearrange(patches, "b (y x) d -> b d y x", y=map_height(patches.shape[1])),
                cls,
                cls.float() @ self.weight.T + self.bias,
            )

    @property
    def class_weight(self) -> Float[Tensor, "classes dim"]:
        """Weight of each number of the token for each class."""
        return self.weight

    @property
    def device(self) -> torch.device:
        """Where the weights live."""
        return self.weight.device
