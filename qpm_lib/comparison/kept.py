"""What was measured is kept in the cache folder, so that a stopped comparison goes on and a larger one adds to it."""

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from qpm_lib.core import cache_folder, save_arrays, saved_arrays


class Kept:
    """Arrays with a card in `comparisons/KEY/NAME` of the cache folder; with an empty key nothing is kept on disk.

    Attributes
    ----------
    arrays, card : what is there; empty where nothing was kept yet, or it is damaged.
    """

    def __init__(self, key: str, name: str) -> None:
        self.folder: Path | None = cache_folder() / "comparisons" / key if key else None
        self.name = name
        self.arrays: dict[str, np.ndarray] = {}
        self.card: dict[str, Any] = {}
        if self.folder is not None:
            with contextlib.suppress(ValueError), saved_arrays(self.folder, name, what="maps", chapter="11") as found:
                self.arrays, self.card = found

    def add(self, arrays: Mapping[str, np.ndarray], **card: Any) -> None:
        """Keep something more."""
        self.arrays, self.card = {**self.arrays, **arrays}, {**self.card, **card}
        if self.folder is not None:
            save_arrays(self.folder, self.name, self.arrays, self.card)
