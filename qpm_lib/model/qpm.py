"""The finished classifier: n shared features, few of them per class, and an explanation that adds up to the score."""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple, get_args, get_type_hints

import torch
from einops import einsum
from jaxtyping import Float, Int
from PIL import Image
from torch import Tensor, nn

from qpm_lib.backbones import FrozenBackbone, load_backbone
from qpm_lib.core import AdapterConfig, read_json, write_atomically, write_json
from qpm_lib.data import to_rgb
from qpm_lib.model.adapter import Adapter, Output
from qpm_lib.model.card_rows import with_names
from qpm_lib.model.dense import DenseModel
from qpm_lib.model.files import load_module, save_module
from qpm_lib.model.head import MIN_STD, FixedHead
from qpm_lib.selection import Selection, SparseSelection

POOLINGS = get_args(get_type_hints(AdapterConfig)["pooling"])


class Prediction(NamedTuple):
    """Predicted class and logits of each picture."""

    classes: Int[Tensor, "batch"]
    logits: Float[Tensor, "batch classes"]


class Explanation(NamedTuple):
    """Why a picture got its score for a class.

    Attributes
    ----------
    target : class of each picture. features : positions (0 to n-1) of its k features, ascending.
    contributions : what each of them adds to the logit; their sum is the logit minus the bias of the class (a QPM has none).
    maps : (B, k, g, g), each sums to the part of its contribution that depends on the picture: `contribution + weight * mean / std`.
    Where classes have different numbers of features, k is the largest; the rest are features with weight zero.
    """

    target: Int[Tensor, "batch"]
    features: Int[Tensor, "batch k"]
    contributions: Float[Tensor, "batch k"]
    maps: Float[Tensor, "batch k g g"]


class DinoQPM(nn.Module):
    """Adapter for the selected features and a fixed sparse class layer, on a frozen backbone.

    Called with tokens it returns `Output`; `predict` and `explain` take pictures and need the backbone.

    Attributes
    ----------
    features : (n,) indices of the selected features in the dense model. class_names : C names.
    """

    def __init__(
        self,
        adapter: Adapter,
        head: FixedHead,
        *,
        features: Int[Tensor, "n"],
        class_names: Sequence[str],
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.adapter, self.head, self.dropout = adapter, head, nn.Dropout(dropout)
        self.register_buffer("features", features)
        self.class_names = tuple(class_names)
        self._backbone: list[FrozenBackbone] = []
        self._card: dict[str, Any] = {}
        self._folder: Path | None = None

    @classmethod
    def from_dense(
        cls,
        dense: DenseModel,
        selection: Selection | SparseSelection,
        *,
        mean: Float[Tensor, "n"],
        std: Float[Tensor, "n"],
        class_names: Sequence[str],
        dropout: float = 0.0,
    ) -> "DinoQPM":
        """Cut a dense model down to a selection; `mean` and `std` are those of the selected dense training features.

        The baselines train mean and standard deviation along, as published.

        Raises
        ------
        ValueError : when the selection does not fit the dense model or the classes.
        """
        f, c = dense.head.in_features, dense.head.out_features
        if selection.features.max() >= f or selection.assignment.shape != (c, len(selection.features)):
            theirs = f"{selection.assignment.shape[0]} classes, features up to {selection.features.max()}"
            raise ValueError(
                f"the selection ({theirs}) does not fit the dense model ({c} classes, {f} features): select again"
            )
        features = torch.as_tensor(selection.features)
        weight, bias = torch.as_tensor(selection.weight), torch.as_tensor(selection.bias)
        head = FixedHead(weight, bias, mean=mean, std=std, trainable=isinstance(selection, SparseSelection))
        return cls(dense.adapter.keep(features), head, features=features, class_names=class_names, dropout=dropout)

    def forward(self, patches: Float[Tensor, "batch patches dim"], cls: Float[Tensor, "batch dim"]) -> Output:
        """Maps and vector of the n selected features, and logits."""
        maps, vector = self.adapter.features(patches, cls)
        return Output(maps, vector, self.head(self.dropout(vector.float())))

    @property
    def class_weight(self) -> Float[Tensor, "classes n"]:
        """W: one row per class."""
        return self.head.weight

    @property
    def device(self) -> torch.device:
        """Where the parameters live."""
        return self.head.weight.device

    @property
    def n_per_class(self) -> int:
        """k, the number of features of each class; the largest where they differ."""
        return int((self.head.weight != 0).sum(1).max())

    def explain_tokens(self, out: Output, target: Int[Tensor, "batch"]) -> Explanation:
        """Exact local explanation from an output: E_f[p] = W_cf M_f[p] / (std_f P) for the features of the class (method section 6).

        Raises
        ------
        ValueError : for a pooling that does not come from the patches.
        """
        maps, pooling = out.maps.float(), self.adapter.config.pooling
        if pooling == "max":
            flat = maps.flatten(2)
            peak = torch.zeros_like(flat).scatter_(2, flat.argmax(2, keepdim=True), 1.0)
            maps = (flat * peak).view_as(maps)
        elif pooling == "avg":
            maps = maps / maps[0, 0].numel()
        else:
            raise ValueError(
                f"adapter.pooling (={pooling!r}) uses the CLS token, which has no place in the picture: train with avg or max"
            )
        weights = self.head.weight[target]
        chosen = (
            (weights != 0)
            .float()
            .sort(dim=1, descending=True, stable=True)
            .indices[:, : self.n_per_class]
            .sort(1)
            .values
        )
        rows = torch.arange(len(target), device=chosen.device)[:, None]
        used, std = weights[rows, chosen], self.head.std.detach().clamp_min(MIN_STD)[chosen]
        contributions = used * self.head.normalise(out.vector.float())[rows, chosen]
        return Explanation(target, chosen, contributions.detach(), maps[rows, chosen] * (used / std)[..., None, None])

    def local_map(self, out: Output, target: Int[Tensor, "batch"]) -> Float[Tensor, "batch g g"]:
        """The maps of a class added up; the sum over the picture is the logit plus a constant of the class."""
        return einsum(self.explain_tokens(out, target).maps, "b k y x -> b y x")

    # -- pictures ---------------------------------------------------------------------------------------------------------------

    @property
    def feature_names(self) -> tuple[str, ...]:
        """Names of the n features; `feature 0` and so on where nobody gave others."""
        return tuple(self._card.get("feature_names") or (f"feature {f}" for f in range(len(self.features))))

    def rename_features(self, names: Sequence[str] | Mapping[int, str]) -> None:
        """Give the features other names; they are written into the model folder where the model was saved or loaded, and into its card.

        Parameters
        ----------
        names : all n of them, or those that change, by feature; the others stay as the folder has them.

        Raises
        ------
        ValueError : when there are not n names, one is empty, or the model lies in no folder yet.
        """
        if self._folder is None:
            raise ValueError("the model lies in no folder yet: save it first, then name its features")
        card = read_json(self._folder / "model.json")
        if isinstance(names, Mapping):
            names = [names.get(f, name) for f, name in enumerate(card["feature_names"])]
        if len(names) != len(self.features) or not all(isinstance(name, str) and name.strip() for name in names):
            raise ValueError(f"{len(self.features)} names are needed, none of them empty; {len(names)} were given")
        self._card = {**self._card, "feature_names": list(names)}
        write_json(self._folder / "model.json", {**card, "feature_names": list(names)})
        if (readable := self._folder / "README.md").exists():
            text = with_names(readable.read_text("utf-8"), names)
            write_atomically(readable, lambda temporary: temporary.write_text(text, encoding="utf-8"))

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
        """The backbone that the model was trained on, by its name and preprocessing; `with_backbone` checks that it is the same.

        Raises
        ------
        ValueError : when the model was never saved and knows none, or the weights cannot be had.
        """
        known = self._card.get("backbone", {})
        kinds = {"backbone": str, "image_size": int, "aspect": str}
        if not all(isinstance(known.get(name), kind) for name, kind in kinds.items()):
            raise ValueError("no backbone is attached: call model.with_backbone(load_backbone(...)) first")
        return load_backbone(known["backbone"], weights=weights, image_size=known["image_size"], aspect=known["aspect"])

    def with_backbone(self, backbone: FrozenBackbone) -> "DinoQPM":
        """Attach the backbone that turns pictures into tokens.

        Raises
        ------
        ValueError : when the model was trained on another backbone, other weights or another preprocessing.
        """
        for key, value in self._card.get("backbone", {}).items():
            if backbone.fingerprint.get(key) != value:
                raise ValueError(
                    f"this model was trained with {key} {value!r}, not {backbone.fingerprint.get(key)!r}: load the backbone it was trained with"
                )
        self._backbone = [backbone]
        return self

    def output(self, images: Sequence[Image.Image]) -> Output:
        """Maps, vector and logits of pictures.

        Raises
        ------
        ValueError : when there is no backbone to be had, or there are no pictures.
        """
        if isinstance(images, Image.Image) or not all(isinstance(image, Image.Image) for image in images):
            raise ValueError("pictures must be given as a list of PIL images, for example [Image.open(path)]")
        if not len(images):
            raise ValueError("no pictures were given")
        backbone = self.backbone
        with torch.no_grad():
            tokens = backbone.tokens(backbone.preprocess([to_rgb(image) for image in images]))
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
        elif len(target) != len(images) or not ((target >= 0) & (target < len(self.class_names))).all():
            raise ValueError(
                f"target (={target.tolist()}) must hold one class from 0 to {len(self.class_names) - 1} for each of {len(images)} pictures"
            )
        return self.explain_tokens(out, target)

    # -- files ------------------------------------------------------------------------------------------------------------------

    def save(self, folder: Path, *, backbone: dict[str, Any], made_by: str = "", cropped: bool = False) -> None:
        """Write the model folder; what described an earlier model in it is removed.

        Parameters
        ----------
        backbone : fingerprint of the backbone, checked when the model meets one. made_by : hash of the settings. cropped : the model was
            trained on pictures cut to their boxes.
        """
        for name in ("README.md", "selection.json", "config.json"):
            (folder / name).unlink(missing_ok=True)
        shutil.rmtree(folder / "examples", ignore_errors=True)
        card = {
            "kind": "fixed_head",
            "width": self.adapter.width,
            "adapter": asdict(self.adapter.config),
            "n_features": len(self.features),
            "n_per_class": self.n_per_class,
            "class_names": self.class_names,
            "feature_names": self.feature_names,
            "backbone": backbone,
            "cropped": cropped,
        }
        save_module(self, folder, {**card, "made_by": made_by})
        self._card, self._folder = card, folder

    @classmethod
    def load(cls, folder: str | Path) -> "DinoQPM":
        """Read a model folder. The backbone is loaded by its name when the first picture comes; `with_backbone` attaches one at hand.

        Raises
        ------
        ValueError : when the folder holds no model, or its files are damaged or contradict each other.
        """
        folder = Path(folder)
        if not (folder / "model.json").exists():
            raise ValueError(
                f"{folder} holds no model: it must contain model.json and model.safetensors (chapter 04 writes them)"
            )
        card = read_json(folder / "model.json")
        try:
            n, c, k = card["n_features"], len(card["class_names"]), card["n_per_class"]
            head = FixedHead(torch.zeros(c, n), torch.zeros(c), mean=torch.zeros(n), std=torch.ones(n))
            adapter = Adapter(card["width"], AdapterConfig(**card["adapter"]))
            dict(card["backbone"])
            if len(card["feature_names"]) != n:
                raise ValueError(f"{len(card['feature_names'])} feature names for {n} features")
            for name in ("class_names", "feature_names"):
                if not isinstance(card[name], list) or not all(isinstance(text, str) for text in card[name]):
                    raise TypeError(f"{name} must be a list of texts")
            if card["adapter"]["pooling"] not in POOLINGS:
                raise ValueError(
                    f"adapter.pooling (={card['adapter']['pooling']!r}) must be one of {', '.join(POOLINGS)}"
                )
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise ValueError(
                f"{folder / 'model.json'} does not describe a QPM ({type(error).__name__}: {error})"
            ) from error
        model = cls(adapter, head, features=torch.zeros(n, dtype=torch.long), class_names=card["class_names"])
        load_module(model, folder)
        if model.n_per_class != k:
            raise ValueError(
                f"{folder} contradicts itself: its classes have up to {model.n_per_class} features, not n_per_class (={k})"
            )
        model._card, model._folder = card, folder
        return model.eval()
