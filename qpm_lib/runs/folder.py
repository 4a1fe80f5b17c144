"""Run folders: one place for the settings, results, figures and models of a run."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qpm_lib.backbones import FrozenBackbone
from qpm_lib.core import RunConfig, config_from_dict, load_profile, read_object, write_atomically, write_json
from qpm_lib.data import ImageDataset
from qpm_lib.features import FeatureStore
from qpm_lib.runs.inputs import load_run_backbone, load_run_dataset, load_run_features
from qpm_lib.runs.results import Results

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class RunFolder(Results):
    """A folder with `config.json`, `result.json`, `figures/`, and what the chapters make.

    That is `dense/`, `selection.json`, `model/`, `metrics.json` and `snapshot/` (see `Results`).
    """

    @classmethod
    def create(cls, path: Path, config: RunConfig) -> "RunFolder":
        """Make the folder, or give an existing one new settings; results of other settings are then made again by their
        chapters.

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
        ValueError : when the folder cannot be written, or holds a `config.json` that is not of a run.
        """
        config = self.path / "config.json"
        if config.exists() and "profile" not in read_object(config):
            raise ValueError(f"{config} is not that of a run: choose another folder with --out")
        try:
            write_json(config, asdict(self.config))
        except OSError as error:
            raise self.unwritable(error) from error

    def unwritable(self, error: OSError) -> ValueError:
        """What to raise where the folder cannot be written."""
        return ValueError(f"run folder {self.path} cannot be written ({error.strerror}): choose another with --out")

    @property
    def compared(self) -> Path:
        """Where `qpm compare --report` keeps its result for the report."""
        return self.path / "compared"

    def check_place(self) -> None:
        """Refuse to lie among the run's own pictures.

        Raises
        ------
        ValueError : naming the folder.
        """
        path, pictures = self.path.resolve(), Path(self.config.data.root).resolve()
        if self.config.data.root and pictures.is_dir() and (path == pictures or pictures in path.parents):
            raise ValueError(f"run folder {self.path} lies among the pictures of data.root: choose another with --out")

    @property
    def results(self) -> dict[str, Any]:
        """Contents of `result.json`: one object per chapter."""
        path = self.path / "result.json"
        found = read_object(path) if path.exists() else {}
        if not all(isinstance(entry, dict) for entry in found.values()):
            raise ValueError(f"{path} is damaged (a chapter has no object): delete it and run again")
        return found

    def update_result(self, chapter: str, **values: Any) -> None:
        """Change some entries of a chapter's object in `result.json`."""
        results = self.results
        results[chapter] = {**results.get(chapter, {}), **values}
        write_json(self.path / "result.json", results)

    def record(self, chapter: str, **figures: float | str | None) -> None:
        """Write the key figures of a chapter; its last cell calls this, and a chapter without it has not finished."""
        self.update_result(chapter, figures=figures)

    def save_figure(self, figure: "Figure", name: str) -> Path:
        """Write a figure to `figures/<name>.png`."""
        path = self.path / "figures" / f"{name}.png"
        write_atomically(path, lambda temporary: figure.savefig(temporary, dpi=110, bbox_inches="tight", format="png"))
        return path

    def dataset(self) -> ImageDataset:
        """The pictures of this run.

        Raises
        ------
        ValueError : when they cannot be read, or there are more classes than different sets of features.
        """
        return load_run_dataset(self.config)

    def backbone(self) -> FrozenBackbone:
        """The frozen backbone of this run, on its device."""
        return load_run_backbone(self.config)

    def features(self, dataset: ImageDataset, backbone: FrozenBackbone) -> FeatureStore:
        """The features of this run on its device: extracted on first use, or made live where settings ask for it."""
        return load_run_features(self.config, dataset, backbone)


def open_run(path: str | Path, profile: str | None = None) -> RunFolder:
    """Open a run folder, or make one with the settings of a profile (None: whatever the folder has; toy for a new one).

    Raises
    ------
    ValueError : when the folder belongs to another profile than the one asked for, or its settings cannot be read.
    """
    folder = Path(path).resolve()
    settings = folder / "config.json"
    if not settings.exists():
        return RunFolder.create(folder, load_profile(profile or "toy"))
    config = config_from_dict(read_object(settings))
    if profile not in (None, config.profile):
        raise ValueError(
            f"{folder} belongs to profile {config.profile!r}, not {profile!r}: choose another run_folder, "
            f"or set profile = {config.profile!r}"
        )
    return RunFolder(folder, config)
