"""Run folders: one place for the settings, results, figures and models of a run."""

import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from qpm_lib.adapter import DenseModel
from qpm_lib.artifacts import read_json, write_atomically, write_json
from qpm_lib.backbones import FrozenBackbone, load_backbone
from qpm_lib.config import RunConfig, config_from_dict, load_profile, stage_key
from qpm_lib.data import ImageDataset, load_dataset
from qpm_lib.features import FeatureStore
from qpm_lib.live import LiveFeatures
from qpm_lib.model import DinoQPM
from qpm_lib.seeding import choose_device
from qpm_lib.selection import Selection, SparseSelection
from qpm_lib.snapshot import Snapshot, take_snapshot


class RunFolder:
    """A folder with `config.json`, `result.json`, `figures/`, and what the chapters make: `dense/`, `selection.json`, `model/`, `metrics.json`,
    `snapshot/`.

    Attributes
    ----------
    path : the folder. config : its settings.
    """

    def __init__(self, path: Path, config: RunConfig) -> None:
        self.path, self.config = path, config

    @classmethod
    def create(cls, path: Path, config: RunConfig) -> "RunFolder":
        """Make the folder, or give an existing one new settings; results of other settings are then made again by their chapters.

        Raises
        ------
        ValueError : when the folder cannot be written.
        """
        run = cls(path, config)
        run.write_config()
        return run

    def write_config(self) -> None:
        """Make the folder and write `config.json`.

        Raises
        ------
        ValueError : when the folder cannot be written.
        """
        try:
            write_json(self.path / "config.json", asdict(self.config))
        except OSError as error:
            raise ValueError(f"run folder {self.path} cannot be written ({error.strerror}): choose another with --out") from error

    @property
    def results(self) -> dict[str, Any]:
        """Contents of `result.json`: one object per chapter."""
        path = self.path / "result.json"
        return read_json(path) if path.exists() else {}

    def update_result(self, chapter: str, **values: Any) -> None:
        """Change some entries of a chapter's object in `result.json`."""
        results = self.results
        results[chapter] = {**results.get(chapter, {}), **values}
        write_json(self.path / "result.json", results)

    def record(self, chapter: str, **figures: float | str | None) -> None:
        """Write the key figures of a chapter; its last cell calls this, and a chapter without it has not finished."""
        self.update_result(chapter, figures=figures)

    def save_figure(self, figure: Figure, name: str) -> Path:
        """Write a figure to `figures/<name>.png`."""
        path = self.path / "figures" / f"{name}.png"
        write_atomically(path, lambda temporary: figure.savefig(temporary, dpi=110, bbox_inches="tight", format="png"))
        return path

    # -- what the chapters start from -----------------------------------------------------------------------------------------------

    def dataset(self) -> ImageDataset:
        """The pictures of this run.

        Raises
        ------
        ValueError : when they cannot be read, or there are more classes than different sets of features.
        """
        dataset, wanted = load_dataset(self.config.data), self.config.selection
        sets = math.comb(wanted.n_features, wanted.n_per_class)
        if wanted.method == "qpm" and len(dataset.class_names) > sets:
            raise ValueError(
                f"{len(dataset.class_names)} classes cannot have different sets of selection.n_per_class (={wanted.n_per_class}) out of "
                f"selection.n_features (={wanted.n_features}): there are only {sets}; raise selection.n_features"
            )
        return dataset

    def backbone(self) -> FrozenBackbone:
        """The frozen backbone of this run, on its device."""
        settings = self.config.backbone
        return load_backbone(
            settings.name,
            weights=settings.weights or None,
            image_size=settings.image_size,
            device=self.config.device,
            aspect=settings.aspect,
        )

    def features(self, dataset: ImageDataset, backbone: FrozenBackbone) -> FeatureStore:
        """The features of this run on its device: extracted on first use, or made live where the settings ask for it."""
        settings, augment, device = self.config.features, self.config.data.augment, choose_device(self.config.device)
        if settings.live or augment != "none":
            return LiveFeatures(dataset, backbone, augment=augment, workers=settings.workers).to(device)
        options = {name: getattr(settings, name) for name in ("batch_size", "shard_size", "workers")}
        return FeatureStore.extract(dataset, backbone, **options).to(device)

    def _check_made_by(self, path: Path, stage: str, chapter: str) -> None:
        if not path.exists():
            return
        content = read_json(path)
        if not isinstance(content, dict):
            raise ValueError(f"{path} is damaged: run chapter {chapter} again")
        if content.get("made_by") != stage_key(self.config, stage):
            raise ValueError(
                f"{path.parent if path.name == 'model.json' else path} was made with other settings than config.json: run chapter {chapter} again"
            )

    def save_dense(self, model: DenseModel) -> None:
        """Keep the dense model of this run."""
        model.save(self.path / "dense", made_by=stage_key(self.config, "dense"))

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
            raise ValueError(f"{self.path} holds no finished run (metrics.json is missing): finish it with qpm run --out {self.path}")
        content = read_json(path)
        models = content.get("models") if isinstance(content, dict) else None
        if not isinstance(models, dict) or not models or not all({"values", "intervals", "notes"} <= set(m) for m in models.values()):
            raise ValueError(f"{path} is damaged or from another version: run chapter 06 again (qpm run --from 06)")
        self._check_made_by(path, "model", "06")
        return models

    def save_model(self, model: DinoQPM, store: FeatureStore) -> None:
        """Keep the finished model of this run."""
        cropped, key = self.config.data.crop, stage_key(self.config, "model")
        model.save(self.path / "model", backbone=store.backbone_fingerprint, made_by=key, cropped=cropped)

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
        return take_snapshot(model, dataset, store, self.path / "snapshot", seed=self.config.seed, made_by=stage_key(self.config, "model"))

    def load_snapshot(self) -> Snapshot:
        """What `save_snapshot` kept.

        Raises
        ------
        ValueError : when there is none, or it was made with other settings.
        """
        self._check_made_by(self.path / "snapshot" / "snapshot.json", "model", "07")
        return Snapshot.load(self.path / "snapshot")


def open_run(path: str | Path, profile: str = "toy") -> RunFolder:
    """Open a run folder, or make one with the settings of a profile.

    Raises
    ------
    ValueError : when the folder belongs to another profile, or its settings cannot be read.
    """
    folder = Path(path).resolve()
    settings = folder / "config.json"
    if not settings.exists():
        return RunFolder.create(folder, load_profile(profile))
    config = config_from_dict(read_json(settings))
    if config.profile != profile:
        raise ValueError(
            f"{folder} belongs to profile {config.profile!r}, not {profile!r}: choose another run_folder, or set profile = {config.profile!r}"
        )
    return RunFolder(folder, config)
