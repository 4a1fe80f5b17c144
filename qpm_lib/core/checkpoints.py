"""What a stopped training goes on from: one file, so that it is whole or not there."""

import json
import logging
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from qpm_lib.core.artifacts import to_json, write_atomically

log = logging.getLogger(__name__)
_EVERY = 20.0


class Checkpoint:
    """Weights, the state of the optimiser, the random numbers that come next, and progress, of one training.

    Parameters
    ----------
    path : of the file; None keeps nothing. key : names the training; what another one left is not taken.
    """

    def __init__(self, path: Path | None, key: str) -> None:
        self.path, self.key, self._last = path, key, time.monotonic()

    @property
    def due(self) -> bool:
        """Whether the last one is 20 s old."""
        return self.path is not None and time.monotonic() - self._last > _EVERY

    def keep(
        self,
        network: nn.Module,
        optimiser: torch.optim.Optimizer,
        progress: Mapping[str, Any],
        tensors: Mapping[str, Tensor] | None = None,
    ) -> None:
        """Write the state as it is now. `progress` is anything that JSON can hold, `tensors` are more to be kept."""
        if self.path is None:
            return
        state = optimiser.state_dict()
        found = {f"weights/{name}": value for name, value in network.state_dict().items()}
        for number, values in state["state"].items():
            found |= {f"optimiser/{number}/{name}": torch.as_tensor(value) for name, value in values.items()}
        found |= {f"random/{name}": value for name, value in _random().items()}
        found |= {f"more/{name}": value for name, value in (tensors or {}).items()}
        words = {"key": self.key, "progress": dict(progress), "groups": state["param_groups"]}
        plain = {name: value.detach().cpu().contiguous() for name, value in found.items()}
        metadata = {"training": to_json(words, indent=None)}
        write_atomically(self.path, lambda place: save_file(plain, place, metadata=metadata))
        self._last = time.monotonic()

    def resume(
        self, network: nn.Module, optimiser: torch.optim.Optimizer
    ) -> tuple[dict[str, Any], dict[str, Tensor]] | None:
        """Fill network and optimiser from what was kept of the same training; its progress and more tensors, or None.

        The random numbers go on when `go_on` is called with these tensors.
        """
        if self.path is None or not self.path.exists():
            return None
        try:
            with safe_open(self.path, "pt") as file:
                words = json.loads(file.metadata()["training"])
                if words["key"] != self.key:
                    return None
                found = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (no dictionary)
        except (SafetensorError, KeyError, TypeError, ValueError, OSError):
            log.warning("%s is damaged: training begins anew", self.path)
            return None
        network.load_state_dict(_under("weights/", found))
        state: dict[int, dict[str, Tensor]] = {}
        for name, value in _under("optimiser/", found).items():
            number, which = name.split("/")
            state.setdefault(int(number), {})[which] = value
        groups = [{k: tuple(v) if k == "betas" else v for k, v in group.items()} for group in words["groups"]]
        optimiser.load_state_dict({"state": state, "param_groups": groups})
        more = _under("more/", found) | {f"random/{k}": v for k, v in _under("random/", found).items()}
        return words["progress"], more


def go_on(tensors: Mapping[str, Tensor]) -> None:
    """Set the random numbers of torch to those that came next when a checkpoint was kept."""
    torch.set_rng_state(tensors["random/cpu"])
    if "random/cuda" in tensors and torch.cuda.is_available():
        torch.cuda.set_rng_state(tensors["random/cuda"])


def _random() -> dict[str, Tensor]:
    found = {"cpu": torch.get_rng_state()}
    return found | {"cuda": torch.cuda.get_rng_state()} if torch.cuda.is_initialized() else found


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
