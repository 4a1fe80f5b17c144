"""What a stopped training goes on from: one file, so that it is whole or not there."""

import json
import logging
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from qpm_lib.core import write_atomically

log = logging.getLogger(__name__)
Step = tuple[int, float, float]


class Progress(NamedTuple):
    """Steps that are done, what was measured in each (step, deletion, insertion), and the classes explained."""

    step: int
    history: list[Step]
    explained: set[int]


def keep(
    path: Path,
    key: str,
    network: nn.Module,
    optimiser: torch.optim.Optimizer,
    step: int,
    history: Sequence[Step],
    explained: Collection[int],
) -> None:
    """Write weights, the state of the optimiser, and progress."""
    tensors = {f"weights/{name}": value.cpu().contiguous() for name, value in network.state_dict().items()}
    for number, state in optimiser.state_dict()["state"].items():
        tensors |= {f"optimiser/{number}/{name}": value.cpu().contiguous() for name, value in state.items()}
    words = {"key": key, "step": step, "history": list(history), "explained": sorted(explained)}
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, lambda place: save_file(tensors, place, metadata={"training": json.dumps(words)}))


def resume(path: Path, key: str, network: nn.Module, optimiser: torch.optim.Optimizer) -> Progress | None:
    """Fill network and optimiser from what `keep` wrote for the same training; None where there is nothing of it."""
    if not path.exists():
        return None
    try:
        with safe_open(path, "pt") as file:
            words = json.loads(file.metadata()["training"])
            if words["key"] != key:
                return None
            found = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (no dictionary)
    except (SafetensorError, KeyError, TypeError, ValueError, OSError):
        log.warning("%s is damaged: training begins anew", path)
        return None
    network.load_state_dict({n.removeprefix("weights/"): v for n, v in found.items() if n.startswith("weights/")})
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in found.items():
        if name.startswith("optimiser/"):
            _, number, which = name.split("/")
            state.setdefault(int(number), {})[which] = value
    optimiser.load_state_dict({**optimiser.state_dict(), "state": state})
    log.info("training goes on after step %d", words["step"])
    history = [(int(step), float(deletion), float(insertion)) for step, deletion, insertion in words["history"]]
    return Progress(int(words["step"]), history, set(words["explained"]))
