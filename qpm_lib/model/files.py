"""Model folders: weights as safetensors, everything else as JSON, nothing that can execute code."""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from qpm_lib.core import read_json, write_atomically, write_json
from qpm_lib.model.card_text import with_names
from qpm_lib.model.manifest import ModelManifest, read_manifest


def save_module(module: nn.Module, folder: Path, card: dict[str, Any]) -> None:
    """Write `model.safetensors`, then `model.json`: a folder with the second file is whole."""
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in module.state_dict().items()}
    (folder / "model.json").unlink(missing_ok=True)
    write_atomically(folder / "model.safetensors", lambda temporary: save_file(state, temporary))
    write_json(folder / "model.json", card)


def load_module(module: nn.Module, folder: Path) -> None:
    """Fill a module from `model.safetensors`.

    Raises
    ------
    ValueError : when the file is missing, damaged, or does not fit the card beside it.
    """
    path = folder / "model.safetensors"
    try:
        module.load_state_dict(load_file(path))
    except FileNotFoundError:
        raise ValueError(f"{path} is missing: the model folder is incomplete, make it again") from None
    except (SafetensorError, RuntimeError) as error:
        raise ValueError(
            f"{path} is damaged or does not fit {folder / 'model.json'} ({error}): make it again"
        ) from error


def write_model(module: nn.Module, manifest: ModelManifest, folder: Path, *, made_by: str) -> None:
    """Write a finished model; what described an earlier one in the folder is removed first."""
    for name in ("README.md", "selection.json", "config.json"):
        (folder / name).unlink(missing_ok=True)
    shutil.rmtree(folder / "examples", ignore_errors=True)
    save_module(module, folder, {**manifest.as_json(), "made_by": made_by})


def rename_features(folder: Path, names: Sequence[str] | Mapping[int, str]) -> tuple[str, ...]:
    """Write other names of the features into `model.json` and the readable card; all n names as they are then.

    Raises
    ------
    ValueError : when there are not n names, or one is empty.
    """
    manifest = read_manifest(folder)
    if isinstance(names, Mapping):
        names = [names.get(f, name) for f, name in enumerate(manifest.feature_names)]
    if len(names) != manifest.n_features or not all(isinstance(name, str) and name.strip() for name in names):
        raise ValueError(f"{manifest.n_features} names are needed, none of them empty; {len(names)} were given")
    write_json(folder / "model.json", {**read_json(folder / "model.json"), "feature_names": list(names)})
    if (readable := folder / "README.md").exists():
        text = with_names(readable.read_text("utf-8"), names)
        write_atomically(readable, lambda temporary: temporary.write_text(text, encoding="utf-8"))
    return tuple(names)
