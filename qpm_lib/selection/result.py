"""A selection with its proof, in memory and as JSON."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Float, Int

from qpm_lib.core import read_json, write_json


@dataclass(frozen=True)
class Selection:
    """A selection with its proof.

    Attributes
    ----------
    features : (n,) ascending indices. assignment : (C, n) true where a class uses a feature; k per class,
        no two classes alike.
    objective, bound : value of the selection, and what no selection can exceed. gap : (bound - objective)
        / |objective|.
    seconds : time taken. status : `optimal`, `gap` (the wanted gap is proven), `time_limit` or `interrupted`.
    """

    features: Int[np.ndarray, "n"]
    assignment: Bool[np.ndarray, "classes n"]
    objective: float
    bound: float
    gap: float
    seconds: float
    status: Literal["optimal", "gap", "time_limit", "interrupted"]

    @property
    def weight(self) -> Float[np.ndarray, "classes n"]:
        """The assignment as class weights 0 and 1."""
        return self.assignment.astype(np.float32)

    @property
    def bias(self) -> Float[np.ndarray, "classes"]:
        """No class has a bias."""
        return np.zeros(len(self.assignment), np.float32)

    def save(self, path: Path, *, made_by: str = "") -> None:
        """Write as JSON. `made_by` is the hash of the settings, checked when the selection is used."""
        write_json(path, {**asdict(self), "made_by": made_by})

    @classmethod
    def load(cls, path: Path) -> "Selection":
        """Read a saved selection.

        Raises
        ------
        ValueError : when there is none, or it contradicts itself.
        """
        values = read_saved(path)
        values["features"] = np.array(values["features"], dtype=int)
        values["assignment"] = np.array(values["assignment"], dtype=bool)
        selection = cls(**values)
        if selection.assignment.shape[1] != len(selection.features):
            raise ValueError(
                f"{path} contradicts itself: {len(selection.features)} features but {selection.assignment.shape[1]} "
                "columns"
            )
        return selection


def read_saved(path: Path) -> dict[str, Any]:
    """Contents of a saved selection.

    Raises
    ------
    ValueError : when there is none.
    """
    if not path.exists():
        raise ValueError(f"{path} does not exist: run chapter 03 first")
    values = read_json(path)
    values.pop("made_by", None)
    return values


def relative_gap(objective: float, bound: float) -> float:
    """(bound - objective) / |objective|, never below zero."""
    return max(0.0, bound - objective) / max(abs(objective), 1e-9)
