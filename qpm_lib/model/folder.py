"""The folder of a finished model: written whole, and its features renamed in all of it."""

import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from torch import nn

from qpm_lib.core import read_json, write_atomically, write_json
from qpm_lib.model.card_text import with_locality, with_names
from qpm_lib.model.files import save_module
from qpm_lib.model.manifest import ModelManifest, check_locality, read_manifest


def write_model(module: nn.Module, manifest: ModelManifest, folder: Path, *, made_by: str) -> None:
    """Write a finished model; what described an earlier one in the folder is removed first."""
    for name in ("README.md", "selection.json", "config.json", "calibration.json", "calibration.safetensors"):
        (folder / name).unlink(missing_ok=True)
    shutil.rmtree(folder / "examples", ignore_errors=True)
    save_module(module, folder, {**asdict(manifest), "made_by": made_by})


def _is_text(name: str) -> bool:
    """Whether a name can be written to a file."""
    try:
        return bool(name.encode("utf-8"))
    except UnicodeEncodeError:
        return False


_PROPOSED = re.compile(r"feature \d+( \(proposed: .*\))?")


def with_proposals(names: Sequence[str], proposed: Mapping[int, tuple[str, float]]) -> dict[int, str]:
    """Names of all features to which nobody gave another: `feature 12 (proposed: beak long, 0.71)`, or the number alone
    where nothing is proposed.
    """
    free = [f for f, name in enumerate(names) if _PROPOSED.fullmatch(name)]
    words = {f: f" (proposed: {name}, {support:.2f})" for f, (name, support) in proposed.items()}
    return {f: f"feature {f}{words.get(f, '')}" for f in free}


def rename_features(folder: Path, names: Sequence[str] | Mapping[int, str]) -> tuple[str, ...]:
    """Write other names of the features into `model.json` and the readable card; all n names as they are then.

    Raises
    ------
    ValueError : when there are not n names, or one is empty.
    """
    manifest = read_manifest(folder)
    if isinstance(names, str):
        raise ValueError(f"{names!r} is one text: give a list of {manifest.n_features} names, or names by feature")
    if isinstance(names, Mapping):
        unknown = [key for key in names if key not in range(manifest.n_features)]
        if unknown:
            raise ValueError(
                f"there is no feature {unknown[0]!r}: features are numbered 0 to {manifest.n_features - 1}"
            )
        names = [names.get(f, name) for f, name in enumerate(manifest.feature_names)]
    if len(names) != manifest.n_features:
        raise ValueError(f"{manifest.n_features} names are needed, none of them empty; {len(names)} were given")
    for f, name in enumerate(names):
        if not isinstance(name, str) or not name.strip() or not _is_text(name):
            raise ValueError(f"the name of feature {f} (={name!r}) must be a text that is not empty")
    write_json(folder / "model.json", {**read_json(folder / "model.json"), "feature_names": list(names)})
    _change_card(folder, lambda card: with_names(card, names))
    return tuple(names)


def note_locality(folder: Path, found: Mapping[str, float]) -> dict[str, float]:
    """Write what was measured of the places that features show into `model.json` and the readable card.

    Raises
    ------
    ValueError : when a number is missing or not finite.
    """
    found = {name: float(value) for name, value in found.items()}
    check_locality(found)
    write_json(folder / "model.json", {**read_json(folder / "model.json"), "locality": found})
    _change_card(folder, lambda card: with_locality(card, found))
    return found


def _change_card(folder: Path, change: Callable[[str], str]) -> None:
    if (readable := folder / "README.md").exists():
        text = change(readable.read_text("utf-8"))
        write_atomically(readable, lambda temporary: temporary.write_text(text, encoding="utf-8"))
