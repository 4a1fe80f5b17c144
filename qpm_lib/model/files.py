"""Model folders: weights as safetensors, everything else as JSON, nothing that can execute code."""

from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from qpm_lib.core import write_atomically, write_json


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
    ValueError : when the file is missing, damaged, does not fit the card beside it, or holds numbers that are not
        finite.
    """
    path = folder / "model.safetensors"
    try:
        state = load_file(path)
        module.load_state_dict(state)
    except FileNotFoundError:
        raise ValueError(f"{path} is missing: the model folder is incomplete, make it again") from None
    except (SafetensorError, RuntimeError) as error:
        raise ValueError(
            f"{path} is damaged or does not fit {folder / 'model.json'} ({error}): make it again"
        ) from error
    broken = [name for name, tensor in state.items() if not tensor.isfinite().all()]
    if broken:
        raise ValueError(f"{path} holds numbers that are not finite ({broken[0]}): train the model again")
