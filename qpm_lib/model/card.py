"""A model folder that explains itself: examples of every feature, colours, the selection, the settings, and a readable card."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from qpm_lib.backbones import BACKBONES
from qpm_lib.core import METHODS, RunConfig, read_json, write_atomically, write_json
from qpm_lib.data import ImageDataset
from qpm_lib.features import FeatureStore
from qpm_lib.model.card_rows import card_text, feature_row
from qpm_lib.model.outputs import most_activating, outputs_of
from qpm_lib.model.qpm import DinoQPM
from qpm_lib.plotting import feature_colours, overlay
from qpm_lib.selection import Selection, SparseSelection

_SIDE, _EXAMPLES = 128, 6


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

    Writes `examples/feature_00.jpg` (training pictures on which a feature is strongest, its map over them), `selection.json`,
    `config.json` and, last, `README.md`.

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
    backbone = read_json(folder / "model.json")["backbone"]
    n, c, used = len(model.features), len(model.class_names), (model.class_weight != 0).cpu().numpy()
    proof = (
        f"objective {selection.objective:.4f}, nothing exceeds {selection.bound:.4f} ({selection.status})"
        if isinstance(selection, Selection)
        else "features and class weights by an elastic net"
    )
    cut = ", cut to their boxes: cut new ones to the object, too" if dataset.cropped else ""
    sides = {"squash": "both sides resized", "crop": "central square resized"}[backbone["aspect"]]
    size = backbone["image_size"]
    lines = [
        f"# {METHODS[config.selection.method]} for {c} classes",
        "",
        f"An image classifier that decides by {n} features; a class has {model.n_per_class} of them"
        + (" and its score is their sum." if config.selection.method == "qpm" else " at most, with real weights."),
        "",
        "| | |",
        "|---|---|",
        f"| backbone | {backbone['backbone']}, frozen; weights SHA-256 `{backbone['weights_sha256']}`,"
        f" licence {BACKBONES[backbone['backbone']].licence}; **not in this folder** |",
        f"| pictures | {sides} to {size} x {size} pixels, bicubic{cut} |",
        f"| trained on | {int(dataset.is_train.sum())} pictures of {dataset.root.resolve().name} (tested on {int((~dataset.is_train).sum())}) |",
        f"| selection | {proof} |",
        *(f"| {name} | {100 * value:.1f} % |" for name, value in figures.items()),
        "",
        "## Use",
        "",
        "```",
        f"qpm predict {folder.name} PICTURE... --json answers.json --heatmaps maps",
        "```",
        "",
        "```python",
        f'model = qpm_lib.DinoQPM.load("{folder.name}")',
        "model.predict([image]).classes, model.explain([image]).contributions",
        "```",
        "",
        "The folder refuses to work with another backbone, other weights or another preprocessing. A score is no probability. The classes",
        "are all it knows: a picture of something else gets one of them, too.",
        "",
        "## Features",
        "",
        "Pictures are the training pictures on which the feature is strongest.",
        "",
        "| feature | classes that use it | strongest on |",
        "|---|---|---|",
    ]
    for f, name in enumerate(model.feature_names):
        users = [card_text(model.class_names[q]) for q in np.flatnonzero(used[:, f])]
        shown = ", ".join(users[:8]) + (f" and {len(users) - 8} more" if len(users) > 8 else "")
        lines.append(feature_row(f, name, shown or "none"))
    return "\n".join([*lines, ""])
