"""`model.json` of a model folder: everything about a finished model but its weights, checked when it is read."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, get_args, get_type_hints

from qpm_lib.backbones import FrozenBackbone, load_backbone
from qpm_lib.core import AdapterConfig, read_json
from qpm_lib.model.network import TokenModel

_LARGEST = 1_000_000
# Shares of a feature's value that are left when only the place it shows is kept, or only regions of the same shape
# elsewhere; the share of the picture that it shows; how many pictures were looked at for a feature, on average.
LOCALITY = ("kept", "kept_random", "area", "pictures")
POOLINGS = get_args(get_type_hints(AdapterConfig)["pooling"])


@dataclass(frozen=True)
class ModelManifest:
    """What made a model, and what its parts are called.

    Attributes
    ----------
    width : D of the backbone. n_features, n_per_class : n and k, the largest where classes differ. class_names,
    feature_names : C and n names. backbone : fingerprint of the backbone it was trained on. cropped :
    trained on pictures cut to their boxes. locality : what was measured of the places its features show (`LOCALITY`),
    None before.
    """

    width: int
    adapter: AdapterConfig
    n_features: int
    n_per_class: int
    class_names: tuple[str, ...]
    feature_names: tuple[str, ...]
    backbone: dict[str, Any]
    cropped: bool = False
    kind: str = "fixed_head"
    locality: dict[str, float] | None = None

    def make_backbone(self, *, weights: str | Path | None = None) -> FrozenBackbone:
        """The backbone by its name and preprocessing.

        Raises
        ------
        ValueError : when its name is not known, or the weights cannot be had.
        """
        known, kinds = {"depth": 0} | self.backbone, {"backbone": str, "image_size": int, "aspect": str, "depth": int}
        if not all(isinstance(known.get(name), kind) for name, kind in kinds.items()):
            raise ValueError("no backbone is attached: call model.with_backbone(load_backbone(...)) first")
        made_with = {name: known[name] for name in kinds if name != "backbone"}
        return load_backbone(known["backbone"], weights=weights, **made_with)

    def check_backbone(self, backbone: FrozenBackbone) -> None:
        """Refuse another backbone, other weights or another preprocessing.

        Raises
        ------
        ValueError : naming what differs.
        """
        for key, value in self.backbone.items():
            if backbone.fingerprint.get(key) != value:
                raise ValueError(
                    f"this model was trained with {key} {value!r}, not {backbone.fingerprint.get(key)!r}: "
                    "load the backbone it was trained with"
                )


def manifest_of(
    model: TokenModel, feature_names: tuple[str, ...], backbone: dict[str, Any], *, cropped: bool
) -> ModelManifest:
    """The manifest of a model that was trained on a backbone with this fingerprint."""
    return ModelManifest(
        width=model.adapter.width,
        adapter=model.adapter.config,
        n_features=len(model.features),
        n_per_class=model.n_per_class,
        class_names=model.class_names,
        feature_names=feature_names,
        backbone=backbone,
        cropped=cropped,
    )


def read_manifest(folder: Path) -> ModelManifest:
    """Read `model.json`.

    Raises
    ------
    ValueError : when the folder holds no model, or the file is damaged or contradicts itself.
    """
    path = folder / "model.json"
    if not path.exists():
        raise ValueError(
            f"{folder} holds no model: it must contain model.json and model.safetensors (chapter 04 writes them)"
        )
    card = read_json(path)
    if not isinstance(card, dict):
        raise ValueError(f"{path} does not describe a QPM (it holds no object)")
    try:
        values = {field.name: card[field.name] for field in fields(ModelManifest) if field.name in card}
        adapter = AdapterConfig(**values.pop("adapter"))
        sizes = {name: values[name] for name in ("width", "n_features", "n_per_class")}
        sizes |= {f"adapter.{name}": getattr(adapter, name) for name in ("n_layers", "hidden", "n_features")}
        for name, size in sizes.items():
            if type(size) is not int or not 0 <= size <= _LARGEST:
                raise ValueError(f"{name} (={size!r}) must be a whole number up to {_LARGEST}")
        if adapter.pooling not in POOLINGS:
            raise ValueError(f"adapter.pooling (={adapter.pooling!r}) must be one of {', '.join(POOLINGS)}")
        names = {key: _texts(key, values.pop(key)) for key in ("class_names", "feature_names")}
        manifest = ModelManifest(adapter=adapter, **names, **values)
        dict(manifest.backbone)
        if manifest.locality is not None:
            check_locality(manifest.locality)
        if len(manifest.feature_names) != manifest.n_features:
            raise ValueError(f"{len(manifest.feature_names)} feature names for {manifest.n_features} features")
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} does not describe a QPM ({type(error).__name__}: {error})") from error
    return manifest


def check_locality(locality: Mapping[str, float]) -> None:
    """Refuse anything but a finite number for each of `LOCALITY`.

    Raises
    ------
    ValueError : naming what is wrong.
    """
    if not isinstance(locality, Mapping) or set(locality) != set(LOCALITY):
        raise ValueError(f"locality (={locality!r}) must hold {', '.join(LOCALITY)}")
    for name, value in locality.items():
        if type(value) not in (int, float) or not math.isfinite(value):
            raise ValueError(f"locality.{name} (={value!r}) must be a number")


def _texts(name: str, values: Sequence[str]) -> tuple[str, ...]:
    if not isinstance(values, list) or not all(isinstance(text, str) for text in values):
        raise TypeError(f"{name} must be a list of texts")
    return tuple(values)
