"""What is compared: models of finished runs on one set of pictures, and what is true of them."""

import hashlib
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import combinations
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from PIL import Image
from torch import Tensor, nn

from qpm_lib.backbones import FrozenBackbone, state_hash
from qpm_lib.comparison.kept import Kept
from qpm_lib.core import METHODS, VERSION, content_hash, stage_key
from qpm_lib.data import ImageDataset, load_scenes
from qpm_lib.explain import METHODS as EXPLANATIONS
from qpm_lib.explain import ExplanationMethod, LearnedRanking, Target, make, possible
from qpm_lib.metrics import BoxEffects, ExactParts, PictureTruth, box_effects, exact_parts, paint, picture_truths, twin
from qpm_lib.model import train_linear_probe
from qpm_lib.runs import RunFolder

log = logging.getLogger(__name__)

Build = Callable[[Target], ExplanationMethod]
EXACT = "exact_answer"  # the map that shows what is true, as well as the patch grid can show it
_BATCH = 32
_FOLDERS = {"linear_probe": "linear_probe", "sldd": "model", "qsenn": "model", "qpm": "model"}


@dataclass
class Case:
    """One model of one run, and the pictures on which it is explained.

    Attributes
    ----------
    model : its name in `core.METHODS`. seed : of the run. rows : of the data set. labels, rivals : (B,) predicted class
        of each picture, and the class that it is told from: the twin of a rendered bird, otherwise the runner-up.
    explainer : folder of a trained explainer. exact, truths : None where pictures cannot be drawn again.
    """

    model: str
    seed: int
    target: Target
    rows: Int[np.ndarray, "pictures"]
    images: list[Image.Image]
    labels: Int[Tensor, "pictures"]
    rivals: Int[Tensor, "pictures"]
    class_names: tuple[str, ...]
    explainer: Path | None = None
    exact: ExactParts | None = None
    truths: list[PictureTruth] | None = None

    @cached_property
    def key(self) -> str:
        """Names all that maps and scores of a method depend on, but the method."""
        pictures = [hashlib.sha256(image.tobytes()).hexdigest() for image in self.images]
        backbone, head = self.target.backbone, state_hash(self.target.model.state_dict())
        asked = [self.labels.tolist(), self.rivals.tolist(), self.truths is not None]
        return content_hash([VERSION, backbone.fingerprint, backbone.image_size, head, pictures, asked])

    def some(self, numbers: Int[np.ndarray, "some"]) -> tuple[list[Image.Image], Int[Tensor, "some"]]:
        """Some of the pictures, and their predicted classes."""
        return [self.images[i] for i in numbers], self.labels[torch.from_numpy(numbers)]

    def boxes(self, some: Int[np.ndarray, "some"]) -> BoxEffects:
        """What random boxes cost on some of the pictures: the same for all methods."""
        kept, wanted = Kept(self.key, "boxes"), [str(i) for i in some]
        if new := [i for i in some if str(i) not in kept.arrays]:
            found = box_effects(self.target, [self.images[i] for i in new])
            drops = {str(i): one for i, one in zip(new, found.drops, strict=True)}
            kept.add({"boxes": found.boxes, **drops})
        return BoxEffects(kept.arrays["boxes"], np.stack([kept.arrays[i] for i in wanted]))

    def methods(self) -> dict[str, Build]:
        """How to make each method of `explain.METHODS` that can explain this model; the exact answer has no method. A
        learned ranking explains classes that it never met, too.
        """
        found: dict[str, Build] = {name: _maker(name) for name in possible(self.target)}
        if self.explainer is not None:
            try:
                decoder = LearnedRanking(self.target, explainer=self.explainer).decoder
                found["ranking"] = lambda target: LearnedRanking(target, explainer=decoder)
            except ValueError as error:  # trained for another model, or damaged
                log.warning("ranking is left out: %s", error)
        return {name: found[name] for name in EXPLANATIONS if name in found}

    def exact_maps(self) -> Float[np.ndarray, "pictures two g g"]:
        """The exact values of the parts per area, painted on the patch grid, for the class and for its rival."""
        found = []
        for truth in self.truths or ():
            lead = np.zeros_like(truth.value) if truth.lead is None else truth.lead
            both = (truth.per_area(truth.value), truth.per_area(truth.value - lead))
            found.append([paint(values, truth.covered[: len(values)]) for values in both])
        return np.array(found)


def _maker(name: str) -> Build:
    return lambda target: make(name, target)


def known_models(run: RunFolder) -> tuple[str, ...]:
    """Names of the models of a run, in the order of `core.METHODS`."""
    return ("linear_probe", "dense", run.config.selection.method)


def open_cases(
    runs: Sequence[RunFolder], *, models: Sequence[str] | None = None, pictures: int = 200, workers: int = 1
) -> list[Case]:
    """The models of finished runs on the same test pictures, spread over the test split.

    Runs may differ in seed and in method; what they have in common (the linear probe of a seed, say) counts once. For
    rendered birds every subset of parts is drawn and asked for, unless the answers are in the cache.

    Parameters
    ----------
    models : names in `core.METHODS`; None takes the linear probe, the dense model and the finished one. pictures : how
        many. workers : processes that draw ahead; 0 draws in this one.

    Raises
    ------
    ValueError : for runs that differ in more than seed and method, a model that no run has, or fewer than one picture.
    """
    if not runs or pictures < 1:
        raise ValueError(f"{len(runs)} runs and {pictures} pictures cannot be compared: give at least one of each")
    wanted = tuple(models) if models else tuple(dict.fromkeys(m for run in runs for m in known_models(run)))
    for name in wanted:
        if not any(name in known_models(run) for run in runs):
            there = ", ".join(m for m in METHODS if any(m in known_models(run) for run in runs))
            raise ValueError(f"no run has a model {name!r}: choose from {there}")
    for run, earlier in combinations(runs, 2):
        _check_alike(earlier, run)
    dataset, backbone = runs[0].dataset(), runs[0].backbone()
    count = min(pictures, len(dataset.test_rows))
    rows = dataset.test_rows[np.linspace(0, len(dataset.test_rows) - 1, count).astype(int)]
    images, found = [dataset.image(int(row)) for row in rows], {}
    for run in runs:
        for name, model in _models(run, wanted, dataset, backbone).items():
            target, folder = Target(model, backbone), run.path / "explainers" / _FOLDERS.get(name, "none")
            explainer = folder if (folder / "model.json").exists() else None
            labels, rivals = _two_best(target, images)
            case = Case(name, run.config.seed, target, rows, images, labels, rivals, dataset.class_names, explainer)
            found.setdefault((name, run.config.seed, state_hash(model.state_dict())), case)
    _check_seeds(list(found))
    cases = [case for m in METHODS for case in found.values() if case.model == m]
    if runs[0].config.data.kind == "toybirds":
        _add_truth(cases, dataset, workers)
    return cases


def _models(
    run: RunFolder, wanted: Sequence[str], dataset: ImageDataset, backbone: FrozenBackbone
) -> dict[str, nn.Module]:
    """Those models of a run that are wanted, in the order of `core.METHODS`."""
    made: dict[str, Callable[[], nn.Module]] = {
        "linear_probe": lambda: train_linear_probe(run.features(dataset, backbone), seed=run.config.seed),
        "dense": run.load_dense,
        run.config.selection.method: lambda: run.load_model().with_backbone(backbone),
    }
    return {name: made[name]() for name in METHODS if name in wanted and name in made}


@torch.no_grad()
def _two_best(target: Target, images: Sequence[Image.Image]) -> tuple[Int[Tensor, "pictures"], Int[Tensor, "pictures"]]:
    parts = (target.pixels(images[start : start + _BATCH]) for start in range(0, len(images), _BATCH))
    best = torch.cat([target(pixels).topk(2).indices.cpu() for pixels in parts])
    return best[:, 0], best[:, 1]


def _add_truth(cases: Sequence[Case], dataset: ImageDataset, workers: int) -> None:
    """Exact answers of all models, which share the drawing; the rival of a bird is its twin, where it has one."""
    scenes, backbone = load_scenes(dataset.root), cases[0].target.backbone
    everybody = {str(i): case.target.model for i, case in enumerate(cases)}
    answers = exact_parts(everybody, backbone, dataset, scenes, cases[0].rows, workers=workers)
    for i, case in enumerate(cases):
        case.exact = answers[str(i)]
        case.labels = torch.from_numpy(case.exact.predicted)  # in the precision in which the answers were given
        case.truths = picture_truths(case.exact, dataset, scenes, backbone.grid)
        twins = [twin(scenes.species, int(c)) for c in case.labels]
        case.rivals = torch.tensor([int(r) if t is None else t[0] for t, r in zip(twins, case.rivals, strict=True)])


def _check_alike(run: RunFolder, first: RunFolder) -> None:
    for part in ("data", "backbone"):
        if getattr(run.config, part) != getattr(first.config, part):
            raise ValueError(
                f"{run.path} and {first.path} differ in {part}: compare runs on the same pictures and the same backbone"
            )
    one, other = (replace(r.config, seed=0, device="") for r in (run, first))
    same = run.config.selection.method == first.config.selection.method
    if (one != other) if same else (stage_key(one, "dense") != stage_key(other, "dense")):
        raise ValueError(
            f"{run.path} and {first.path} differ in more than seed and method, so that their models are not seeds of "
            "one another: compare them in two calls"
        )


def _check_seeds(found: Sequence[tuple[str, int, str]]) -> None:
    for (model, seed, head), (other, its_seed, its_head) in combinations(found, 2):
        if (model, seed) == (other, its_seed) and head != its_head:
            raise ValueError(f"two runs have different models {model!r} of seed {seed}: compare them in two calls")
