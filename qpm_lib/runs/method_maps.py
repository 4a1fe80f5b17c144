"""Maps of explanation methods for the pictures of a snapshot: what the report's explorer can switch to without a
model.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int, Int8

from qpm_lib.core import progress, save_arrays, saved_arrays
from qpm_lib.data import ImageDataset
from qpm_lib.explain import METHODS, ExplanationMethod
from qpm_lib.model import DinoQPM
from qpm_lib.runs.snapshot import Snapshot

_CHUNK = 32


@dataclass(frozen=True)
class MethodMaps:
    """Maps for the predicted class of each picture of a snapshot.

    Attributes
    ----------
    rows : (m,) of the data set. maps : by method, (m, g, g) in parts of 127 of the largest absolute value of each map;
        methods without a sign begin at their smallest value.
    """

    rows: Int[np.ndarray, "m"]
    maps: Mapping[str, Int8[np.ndarray, "m g g"]]

    def save(self, folder: Path, *, made_by: str = "") -> None:
        """Write `maps.safetensors` and, last, `maps.json`."""
        arrays = {"rows": self.rows, **{f"maps/{name}": maps for name, maps in self.maps.items()}}
        card = {"made_by": made_by, "methods": list(self.maps), "pictures": len(self.rows)}
        save_arrays(folder, "maps", arrays, card)

    @classmethod
    def load(cls, folder: Path) -> "MethodMaps":
        """Read a folder that `save` wrote; methods that this version does not know are left out.

        Raises
        ------
        ValueError : when there are none, or they are damaged.
        """
        with saved_arrays(folder, "maps", what="maps of methods", chapter="08") as (arrays, _):
            rows = arrays.pop("rows")
            maps = {name.removeprefix("maps/"): found for name, found in arrays.items()}
            if any(m.dtype != np.int8 or m.ndim != 3 or len(m) != len(rows) for m in maps.values()):
                raise ValueError("the maps do not fit the pictures")
        return cls(rows, {name: maps[name] for name in METHODS if name in maps})


def take_method_maps(
    methods: Mapping[str, ExplanationMethod], model: DinoQPM, dataset: ImageDataset, snapshot: Snapshot
) -> MethodMaps:
    """Explain the predicted class of every picture of a snapshot by several methods."""
    predicted = torch.as_tensor(snapshot.predicted[snapshot.kept]).long()
    found: dict[str, list[np.ndarray]] = {name: [] for name in methods}
    for start in progress(range(0, len(snapshot.rows), _CHUNK), "maps for the report"):
        rows = snapshot.rows[start : start + _CHUNK].tolist()
        images = [model.backbone.square(dataset.image(row)) for row in rows]
        for name, method in methods.items():
            maps = method(images, predicted[start : start + _CHUNK]).numpy()
            found[name].append(_in_bytes(METHODS[name].drawn(maps)))
    return MethodMaps(snapshot.rows, {name: np.concatenate(maps) for name, maps in found.items()})


def _in_bytes(maps: Float[np.ndarray, "b g g"]) -> Int8[np.ndarray, "b g g"]:
    top = np.abs(maps).max((1, 2), keepdims=True)
    return np.round(127 * np.divide(maps, top, out=np.zeros_like(maps), where=top > 0)).astype(np.int8)
