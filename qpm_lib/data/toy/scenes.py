"""The toy birds as a data set on disk, in the layout of CUB-200-2011, and the scenes behind its pictures."""

import os
import shutil
import tempfile
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from qpm_lib.core import progress, read_json, write_json
from qpm_lib.data.dataset import ImageDataset
from qpm_lib.data.toy.bird import FACTOR_PART, FACTORS, PARTS, Bird
from qpm_lib.data.toy.render import Render, render
from qpm_lib.data.toy.species import make_species, species_name
from qpm_lib.data.toy.watermark import watermark

ATTRIBUTES = tuple(f"{factor}::{variant}" for factor, variants in FACTORS.items() for variant in variants)
_RECIPE, _MANY = "toybirds.json", 500  # pictures from which on processes share the drawing


@dataclass(frozen=True)
class Scenes:
    """What stands behind a toy picture: the bird of each class, and the scene seed of each file."""

    species: tuple[Bird, ...]
    seeds: dict[str, int]

    def render(self, dataset: ImageDataset, row: int, *, without: Collection[str] = (), **variants: str) -> Render:
        """Draw a picture of the data set again, without some parts or with other variants.

        Parameters
        ----------
        without : names of parts to leave out.
        variants : factor and variant, for example `beak="hook"`.
        """
        unknown = set(variants) - set(FACTORS)
        if unknown:
            raise ValueError(f"unknown factors {sorted(unknown)}: choose from {', '.join(FACTORS)}")
        bird = self.species[int(dataset.labels[row])]._replace(**variants)
        return render(bird, self.seeds[dataset.files[row]], without=without)


def present(bird: Bird) -> list[bool]:
    """Which attributes a bird has; a bird without a crown has no crown colour."""
    has = []
    for factor, variants in FACTORS.items():
        shown = not (factor == "crown_colour" and bird.crown == "none")
        has += [shown and getattr(bird, factor) == v for v in variants]
    return has


class _Job(NamedTuple):
    """A picture to be drawn: its file, the bird, and the seed of the scene."""

    name: str
    bird: Bird
    scene: int
    marked: bool


class _Found(NamedTuple):
    """What is written down of a picture: its box, a row for every part, and which parts are to be seen."""

    box: str
    parts: list[str]
    visible: set[int]


class _Drawn(Dataset):
    """Draws and saves pictures and their masks; what a scene looks like depends on its job alone, so that processes can
    share the work.
    """

    def __init__(self, root: Path, jobs: list[_Job]) -> None:
        self.root, self.jobs = root, jobs

    def __len__(self) -> int:
        return len(self.jobs)

    def __getitem__(self, position: int) -> _Found | OSError:
        """The error of a disk that is full is given back: raised here, it would come with the words of a process."""
        try:
            return self._draw(self.jobs[position])
        except OSError as error:
            return error

    def _draw(self, job: _Job) -> _Found:
        image, parts = render(job.bird, job.scene)
        image = watermark(image, job.scene)[0] if job.marked else image
        Image.fromarray(image).save(self.root / "images" / job.name, compress_level=1)
        Image.fromarray(((parts > 0) * 255).astype(np.uint8)).save(self.root / "segmentations" / job.name)
        y, x = np.nonzero(parts)
        box = f"{x.min()}.0 {y.min()}.0 {np.ptp(x) + 1}.0 {np.ptp(y) + 1}.0"
        return _Found(box, _part_rows(parts), set(np.unique(parts).tolist()))


def _part_rows(parts: np.ndarray) -> list[str]:
    rows = []
    for k in range(1, len(PARTS)):
        y, x = np.nonzero(parts == k)
        seen = len(x) > 0
        rows.append(f"{k} {x.mean() if seen else 0:.1f} {y.mean() if seen else 0:.1f} {int(seen)}")
    return rows


def write_toybirds(
    root: Path,
    *,
    n_species: int = 24,
    train_per_class: int = 100,
    test_per_class: int = 40,
    seed: int = 3,
    marked: int | None = None,
) -> None:
    """Render the data set into `root`; the folder appears only when it is whole. With `marked`, all pictures of the
    species of this number, counted from 0, get a watermark.

    The scene seeds of a data set start at `seed` * 10,000,000, so that different seeds share no scene.
    """
    species = make_species(n_species, seed)
    if marked is not None and not 0 <= marked < n_species:
        raise ValueError(f"marked (={marked}) must be a species from 0 to {n_species - 1}")
    root.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(dir=root.parent, prefix=f".{root.name}."))
    try:
        _fill(work, species, (train_per_class, test_per_class), seed, marked)
        work.chmod(0o755)
        if root.exists():
            shutil.rmtree(root)
        work.rename(root)
    except BaseException:
        shutil.rmtree(work, ignore_errors=True)
        raise


def _fill(root: Path, species: list[Bird], counts: tuple[int, int], seed: int, marked: int | None) -> None:
    train, test = counts
    classes = [f"{c + 1:03d}.{species_name(bird)}" for c, bird in enumerate(species)]
    lines: dict[str, list[str]] = {
        name: []
        for name in (
            "images",
            "image_class_labels",
            "train_test_split",
            "bounding_boxes",
            "parts/part_locs",
            "attributes/image_attribute_labels",
        )
    }
    seeds = {}
    for name in ("images", "segmentations"):
        for folder in classes:
            (root / name / folder).mkdir(parents=True)
    jobs = []
    for c, k in ((c, k) for c in range(len(species)) for k in range(train + test)):
        name = f"{classes[c]}/{classes[c][4:]}_{k + 1:04d}.png"
        jobs.append(_Job(name, species[c], seed * 10_000_000 + len(jobs) + 1, marked=c == marked))
        seeds[f"images/{name}"] = jobs[-1].scene
        lines["images"].append(f"{len(jobs)} {name}")
        lines["image_class_labels"].append(f"{len(jobs)} {c + 1}")
        lines["train_test_split"].append(f"{len(jobs)} {int(k < train)}")
    workers = min(2, os.cpu_count() or 1) if len(jobs) >= _MANY else 0
    drawn = DataLoader(_Drawn(root, jobs), batch_size=None, num_workers=workers, generator=torch.Generator())
    for image_id, (job, found) in enumerate(zip(jobs, progress(drawn, "rendering toy birds"), strict=True), 1):
        if isinstance(found, OSError):
            raise found
        lines["bounding_boxes"].append(f"{image_id} {found.box}")
        lines["parts/part_locs"] += [f"{image_id} {row}" for row in found.parts]
        for a, (attribute, has) in enumerate(zip(ATTRIBUTES, present(job.bird), strict=True), 1):
            part = PARTS.index(FACTOR_PART[attribute.split("::")[0]])
            shown = has and (part in found.visible or attribute == "crown::none")
            lines["attributes/image_attribute_labels"].append(f"{image_id} {a} {int(shown)} 4 0.0")
    lines["classes"] = [f"{c + 1} {name}" for c, name in enumerate(classes)]
    lines["parts/parts"] = [f"{k} {PARTS[k]}" for k in range(1, len(PARTS))]
    lines["attributes/attributes"] = [f"{a} {name}" for a, name in enumerate(ATTRIBUTES, 1)]
    lines["attributes/class_attribute_labels_continuous"] = [
        " ".join(str(100.0 * has) for has in present(bird)) for bird in species
    ]
    for name, text in lines.items():
        (root / name).parent.mkdir(exist_ok=True)
        (root / f"{name}.txt").write_text("\n".join(text) + "\n", encoding="utf-8")
    write_json(root / _RECIPE, {"species": [bird._asdict() for bird in species], "seeds": seeds})


def load_scenes(root: Path) -> Scenes:
    """The species and scene seeds of a rendered data set.

    Raises
    ------
    ValueError : when the folder holds no toy birds.
    """
    if not (root / _RECIPE).exists():
        raise ValueError(f"{root} holds no toy birds: only rendered pictures can be rendered again")
    recipe = read_json(root / _RECIPE)
    return Scenes(tuple(Bird(**bird) for bird in recipe["species"]), recipe["seeds"])
