"""A model folder that explains itself: examples of every feature, colours, the selection, the settings,
and a readable card.
"""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from qpm_lib.backbones import BACKBONES
from qpm_lib.core import METHODS, RunConfig, write_atomically, write_json
from qpm_lib.data import ImageDataset
from qpm_lib.features import FeatureStore
from qpm_lib.model.card_text import card_text, locality_text
from qpm_lib.model.manifest import read_manifest
from qpm_lib.model.outputs import most_activating, outputs_of
from qpm_lib.model.qpm import DinoQPM
from qpm_lib.plotting import feature_colours, overlay
from qpm_lib.selection import Selection, SparseSelection

_SIDE, _EXAMPLES, _USERS = 128, 6, 8


def describe_model(
    folder: Path,
    model: DinoQPM,
    store: FeatureStore,
    dataset: ImageDataset,
    config: RunConfig,
    *,
    selection: Selection | SparseSelection,
    figures: Mapping[str, float] | None = None,
) -> None:
    """Complete a saved model folder.

    Writes `examples/feature_00.jpg` (training pictures on which a feature is strongest, its map over them),
    `selection.json`, `config.json` and, last, `README.md`.

    Parameters
    ----------
    figures : measured shares to state in the card, such as `{"test accuracy": 0.95}`.
    """
    weight = model.class_weight.detach().cpu().numpy()
    colours = feature_colours(weight)
    rows = most_activating(model, store, count=_EXAMPLES, train=True)
    for f, best in enumerate(rows):
        strip = _examples(f, best, model, store, dataset, colours[f])
        write_atomically(
            folder / "examples" / f"feature_{f:02d}.jpg", lambda t, strip=strip: strip.save(t, "JPEG", quality=85)
        )
    selection.save(folder / "selection.json")
    write_json(folder / "config.json", asdict(config))
    text = _card(folder, model, dataset, config, selection, figures or {})
    write_atomically(folder / "README.md", lambda temporary: temporary.write_text(text, encoding="utf-8"))


def _examples(
    f: int, best: np.ndarray, model: DinoQPM, store: FeatureStore, dataset: ImageDataset, colour: str
) -> Image.Image:
    maps = outputs_of(model, store, torch.as_tensor(best)).maps[:, f].cpu().numpy()
    top, panels = float(maps.max()), []
    for row, heat in zip(best, maps, strict=True):
        picture = np.asarray(model.backbone.square(dataset.image(int(row)), _SIDE))
        panels.append(overlay(picture, heat, colour, top=top if top > 0 else None))
    return Image.fromarray((255 * np.clip(np.concatenate(panels, 1), 0, 1)).astype(np.uint8))


def _card(
    folder: Path,
    model: DinoQPM,
    dataset: ImageDataset,
    config: RunConfig,
    selection: Selection | SparseSelection,
    figures: Mapping[str, float],
) -> str:
    manifest = read_manifest(folder)
    backbone = manifest.backbone
    used = (model.class_weight != 0).cpu().numpy()
    proof = "features and class weights by an elastic net"
    if isinstance(selection, Selection):
        value, bound = f"{selection.objective:.4f}", f"{selection.bound:.4f}"
        proof = f"objective {value}, nothing exceeds {bound} ({selection.status})"
    users = [[model.class_names[q] for q in np.flatnonzero(used[:, f])] for f in range(used.shape[1])]
    return card_text(
        method=METHODS[config.selection.method],
        binary=config.selection.method == "qpm",
        n_classes=len(model.class_names),
        n_features=len(model.features),
        n_per_class=model.n_per_class,
        backbone=backbone,
        licence=BACKBONES[backbone["backbone"]].licence,
        cropped=dataset.cropped,
        source=dataset.root.resolve().name,
        trained_on=int(dataset.is_train.sum()),
        tested_on=int((~dataset.is_train).sum()),
        proof=proof,
        figures=figures,
        places=locality_text(manifest.locality),
        folder=folder.name,
        features=[
            (name, names[:_USERS], len(names) - _USERS) for name, names in zip(model.feature_names, users, strict=True)
        ],
    )
