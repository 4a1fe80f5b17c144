"""What the chapters of a run leave, each file with the hash of the settings that made it, checked when it is read."""

import contextlib
from pathlib import Path
from typing import Any

import numpy as np

from qpm_lib.core import RunConfig, choose_device, read_json, stage_key, write_json
from qpm_lib.data import ImageDataset
from qpm_lib.explain import Inspection
from qpm_lib.features import FeatureStore
from qpm_lib.model import DenseModel, DinoQPM
from qpm_lib.runs.method_maps import MethodMaps
from qpm_lib.runs.snapshot import Snapshot, take_snapshot
from qpm_lib.selection import Selection, SparseSelection


class Results:
    """The dense model, selection, measures, finished model and snapshot of a run, in its folder.

    Attributes
    ----------
    path : the folder. config : its settings.
    """

    def __init__(self, path: Path, config: RunConfig) -> None:
        self.path, self.config = path, config

    def _check_made_by(self, path: Path, stage: str, chapter: str) -> None:
        if not path.exists():
            return
        content = read_json(path)
        if not isinstance(content, dict):
            raise ValueError(f"{path} is damaged: run chapter {chapter} again")
        if content.get("made_by") != stage_key(self.config, stage):
            raise ValueError(
                f"{path.parent if path.name == 'model.json' else path} was made with other settings than config.json: "
                f"run chapter {chapter} again"
            )

    def checkpoint(self, name: str) -> Path:
        """The file from which a stopped training goes on, of the `dense` or the finished `model`."""
        return self.path / name / "training.safetensors"

    def save_dense(self, model: DenseModel) -> None:
        """Keep the dense model of this run."""
        model.save(self.path / "dense", made_by=stage_key(self.config, "dense"))
        _forget(self.checkpoint("dense"))

    def load_dense(self) -> DenseModel:
        """The dense model of this run, on its device.

        Raises
        ------
        ValueError : when there is none, or it was made with other settings.
        """
        self._check_made_by(self.path / "dense" / "model.json", "dense", "02")
        return DenseModel.load(self.path / "dense").to(choose_device(self.config.device))

    def save_selection(self, selection: Selection | SparseSelection) -> None:
        """Keep the selection of this run."""
        selection.save(self.path / "selection.json", made_by=stage_key(self.config, "selection"))

    def load_selection(self) -> Selection | SparseSelection:
        """The selection of this run.

        Raises
        ------
        ValueError : when there is none, or it was made with other settings.
        """
        self._check_made_by(self.path / "selection.json", "selection", "03")
        kind = Selection if self.config.selection.method == "qpm" else SparseSelection
        return kind.load(self.path / "selection.json")

    def save_metrics(self, models: dict[str, Any]) -> None:
        """Keep the measures of this run's models (`metrics.Evaluation` by method)."""
        write_json(self.path / "metrics.json", {"made_by": stage_key(self.config, "model"), "models": models})

    def load_metrics(self) -> dict[str, Any]:
        """The measures of this run's models: `values`, `intervals` and `notes` by method.

        Raises
        ------
        ValueError : when there are none, they are damaged, or they were made with other settings.
        """
        path = self.path / "metrics.json"
        if not path.exists():
            raise ValueError(
                f"{self.path} holds no finished run (metrics.json is missing): finish it with qpm run --out {self.path}"
            )
        content = read_json(path)
        models = content.get("models") if isinstance(content, dict) else None
        if not isinstance(models, dict) or not models or not all(_is_measured(m) for m in models.values()):
            raise ValueError(f"{path} is damaged or from another version: run chapter 06 again (qpm run --from 06)")
        self._check_made_by(path, "model", "06")
        return models

    def save_model(self, model: DinoQPM, store: FeatureStore) -> None:
        """Keep the finished model of this run."""
        cropped, key = self.config.data.crop, stage_key(self.config, "model")
        model.save(self.path / "model", backbone=store.backbone_fingerprint, made_by=key, cropped=cropped)
        _forget(self.checkpoint("model"))

    def load_model(self) -> DinoQPM:
        """The finished model of this run, on its device.

        Raises
        ------
        ValueError : when there is none, or it was made with other settings.
        """
        self._check_made_by(self.path / "model" / "model.json", "model", "04")
        return DinoQPM.load(self.path / "model").to(choose_device(self.config.device))

    def save_snapshot(self, model: DinoQPM, dataset: ImageDataset, store: FeatureStore) -> Snapshot:
        """Keep the model's answers to the test pictures, and some of the pictures, for the report."""
        options = {"seed": self.config.seed, "made_by": stage_key(self.config, "model")}
        return take_snapshot(model, dataset, store, self.path / "snapshot", **options)

    def load_snapshot(self) -> Snapshot:
        """What `save_snapshot` kept.

        Raises
        ------
        ValueError : when there is none, or it was made with other settings.
        """
        self._check_made_by(self.path / "snapshot" / "snapshot.json", "model", "07")
        return Snapshot.load(self.path / "snapshot")

    def save_method_maps(self, found: MethodMaps) -> None:
        """Keep maps of explanation methods for the pictures of the snapshot, for the report.

        Those of other methods stay, where they are of the same model and pictures.
        """
        with contextlib.suppress(ValueError):
            earlier = self.load_method_maps()
            if np.array_equal(earlier.rows, found.rows):
                found = MethodMaps(found.rows, {**earlier.maps, **found.maps})
        found.save(self.path / "explanations", made_by=stage_key(self.config, "model"))

    def load_method_maps(self) -> MethodMaps:
        """What `save_method_maps` kept.

        Raises
        ------
        ValueError : when there are none, or they were made with other settings.
        """
        self._check_made_by(self.path / "explanations" / "maps.json", "model", "08")
        return MethodMaps.load(self.path / "explanations")

    def save_inspection(self, found: Inspection) -> None:
        """Keep the clusters of the pictures of the snapshot, for the report."""
        found.save(self.path / "clusters", made_by=stage_key(self.config, "model"))

    def load_inspection(self) -> Inspection:
        """What `save_inspection` kept.

        Raises
        ------
        ValueError : when there are none, or they were made with other settings.
        """
        self._check_made_by(self.path / "clusters" / "clusters.json", "model", "09")
        return Inspection.load(self.path / "clusters")


def _forget(checkpoint: Path) -> None:
    for path in checkpoint.parent.glob(f"{checkpoint.stem}*{checkpoint.suffix}"):
        path.unlink(missing_ok=True)


def _is_measured(result: object) -> bool:
    """Whether this is one model's `values`, `intervals` and `notes`, by measure."""
    parts = [result.get(name) for name in ("values", "intervals", "notes")] if isinstance(result, dict) else []
    if len(parts) != 3 or not all(isinstance(part, dict) for part in parts):
        return False
    values, intervals, notes = parts
    return (
        all(value is None or type(value) in (int, float) for value in values.values())
        and all(isinstance(ends, list) and len(ends) == 2 for ends in intervals.values())
        and all(isinstance(why, str) for why in notes.values())
    )
