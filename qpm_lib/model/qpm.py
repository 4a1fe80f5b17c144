"""The finished classifier: n shared features, few of them per class, and an explanation that adds up to the score."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from PIL import Image
from torch import Tensor

from qpm_lib.backbones import FrozenBackbone
from qpm_lib.data import all_rgb
from qpm_lib.model.adapter import Adapter, Output
from qpm_lib.model.described import DescribedModel
from qpm_lib.model.files import load_module
from qpm_lib.model.folder import write_model
from qpm_lib.model.head import FixedHead
from qpm_lib.model.hub import model_folder
from qpm_lib.model.manifest import manifest_of, read_manifest
from qpm_lib.model.network import Explanation


class Prediction(NamedTuple):
    """Predicted class and logits of each picture."""

    classes: Int[Tensor, "batch"]
    logits: Float[Tensor, "batch classes"]


class DinoQPM(DescribedModel):
    """The network with its frozen backbone and its folder: pictures in, classes and reasons out.

    Called with tokens it returns `Output`; `predict` and `explain` take pictures and need the backbone.
    """

    def __init__(self, *parts: Any, **options: Any) -> None:
        super().__init__(*parts, **options)
        self._backbone: list[FrozenBackbone] = []  # a list hides it from torch: it is never trained or saved

    @property
    def backbone(self) -> FrozenBackbone:
        """The attached backbone; where there is none, the one the model was trained on is loaded by its name.

        Raises
        ------
        ValueError : when its weights cannot be had.
        """
        if not self._backbone:
            self.with_backbone(self.make_backbone().to(self.device))
        return self._backbone[0]

    def make_backbone(self, *, weights: str | Path | None = None) -> FrozenBackbone:
        """The backbone that the model was trained on, by its name and preprocessing; `with_backbone` checks that it is
        the same.

        Raises
        ------
        ValueError : when the model was never saved and knows none, or the weights cannot be had.
        """
        if self.manifest is None or not self.manifest.backbone:
            raise ValueError("no backbone is attached: call model.with_backbone(load_backbone(...)) first")
        return self.manifest.make_backbone(weights=weights)

    def with_backbone(self, backbone: FrozenBackbone) -> "DinoQPM":
        """Attach the backbone that turns pictures into tokens.

        Raises
        ------
        ValueError : when the model was trained on another backbone, other weights or another preprocessing.
        """
        if self.manifest is not None:
            self.manifest.check_backbone(backbone)
        self._backbone = [backbone]
        return self

    def output(self, images: Sequence[Image.Image]) -> Output:
        """Maps, vector and logits of pictures.

        Raises
        ------
        ValueError : when there is no backbone to be had, or there are no pictures.
        """
        pictures, backbone = all_rgb(images), self.backbone
        with torch.no_grad():
            tokens = backbone.tokens(backbone.preprocess(pictures))
            return self(tokens.patches.to(self.device), tokens.cls.to(self.device))

    def predict(self, images: Sequence[Image.Image]) -> Prediction:
        """Classes and logits of pictures."""
        logits = self.output(images).logits
        return Prediction(logits.argmax(1), logits)

    def explain(self, images: Sequence[Image.Image], target: Int[Tensor, "batch"] | None = None) -> Explanation:
        """Exact local explanation of pictures, for the predicted class or for the classes in `target`."""
        out = self.output(images)
        if target is None:
            target = out.logits.argmax(1)
        target = torch.as_tensor(target)
        if target.dtype not in (torch.int16, torch.int32, torch.int64) or target.ndim != 1:
            raise ValueError(f"target (={target.tolist()}) must hold class numbers, one for each picture")
        if len(target) != len(images) or not ((target >= 0) & (target < len(self.class_names))).all():
            raise ValueError(
                f"target (={target.tolist()}) must hold one class from 0 to {len(self.class_names) - 1} for each of "
                f"{len(images)} pictures"
            )
        return self.explain_tokens(out, target)

    def save(self, folder: Path, *, backbone: dict[str, Any], made_by: str = "", cropped: bool = False) -> None:
        """Write the model folder; what described an earlier model in it is removed.

        Parameters
        ----------
        backbone : fingerprint of the backbone, checked when the model meets one. made_by : hash of the settings.
            cropped : the model was trained on pictures cut to their boxes.
        """
        self.manifest = manifest_of(self, self.feature_names, backbone, cropped=cropped)
        write_model(self, self.manifest, folder, made_by=made_by)
        self._folder = folder

    @classmethod
    def load(cls, folder: str | Path) -> "DinoQPM":
        """Read a model folder. The backbone is loaded by its name when the first picture comes;
        `with_backbone` attaches one at hand.

        Raises
        ------
        ValueError : when the folder holds no model, or its files are damaged or contradict each other.
        """
        folder = Path(folder)
        manifest = read_manifest(folder)
        n, c = manifest.n_features, len(manifest.class_names)
        head = FixedHead(torch.zeros(c, n), torch.zeros(c), mean=torch.zeros(n), std=torch.ones(n))
        adapter = Adapter(manifest.width, manifest.adapter)
        model = cls(adapter, head, features=torch.zeros(n, dtype=torch.long), class_names=manifest.class_names)
        load_module(model, folder)
        if model.n_per_class != manifest.n_per_class:
            raise ValueError(
                f"{folder} contradicts itself: its classes have up to {model.n_per_class} features, "
                f"not n_per_class (={manifest.n_per_class})"
            )
        model.manifest, model._folder = manifest, folder
        return model.eval()

    @classmethod
    def from_pretrained(cls, name: str | Path, *, revision: str | None = None, token: str | None = None) -> "DinoQPM":
        """Read a model folder, the run folder it lies in, or a model `owner/name` of the Hugging Face Hub.

        Parameters
        ----------
        revision : branch, tag or commit of the Hub. token : for private models.

        Raises
        ------
        ValueError : when there is neither, or it is damaged.
        """
        return cls.load(model_folder(name, revision=revision, token=token))
