"""What was measured is kept in the cache folder, so that a stopped comparison goes on and a larger one adds to it."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from qpm_lib.core import cache_folder, to_json, write_atomically


class Kept:
    """Arrays with a card in one file, `comparisons/KEY/NAME.safetensors` of the cache folder; with an empty key nothing
    is kept on disk.

    The file is replaced as a whole, and what others added to it meanwhile stays.

    Attributes
    ----------
    arrays, card : what is there; empty where nothing was kept yet, or it is damaged.
    """

    def __init__(self, key: str, name: str) -> None:
        self.path: Path | None = cache_folder() / "comparisons" / key / f"{name}.safetensors" if key else None
        self.arrays: dict[str, np.ndarray] = {}
        self.card: dict[str, Any] = {}
        self._read()

    def add(self, arrays: Mapping[str, np.ndarray], **card: Any) -> None:
        """Keep something more."""
        if self.path is None:
            self.arrays, self.card = {**self.arrays, **arrays}, {**self.card, **card}
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(self.path.with_suffix(".lock")):
            self._read()
            self.arrays, self.card = {**self.arrays, **arrays}, {**self.card, **card}
            tensors = {name: np.ascontiguousarray(array) for name, array in self.arrays.items()}
            told = {"card": to_json(self.card, indent=None)}
            write_atomically(self.path, lambda place: save_file(tensors, place, metadata=told))

    def _read(self) -> None:
        if self.path is None or not self.path.exists():
            return
        try:
            with safe_open(self.path, "np") as file:
                card = json.loads((file.metadata() or {}).get("card", "{}"))
                self.arrays, self.card = {name: file.get_tensor(name) for name in file.keys()}, card  # noqa: SIM118
        except (OSError, SafetensorError, ValueError):
            return
