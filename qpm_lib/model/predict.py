"""From picture files to explained predictions: what `qpm predict` does."""

import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image

from qpm_lib.conformal import HierarchicalSets, Rule
from qpm_lib.data import EXTENSIONS, UnreadableError, is_picture, picture_position, read_image
from qpm_lib.model.adapter import Output
from qpm_lib.model.calibrated import supported_rule
from qpm_lib.model.network import Explanation
from qpm_lib.model.qpm import DinoQPM

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class FeatureUse:
    """A feature of the predicted class: what it adds to the score in this picture, and where its map is strongest,
    in pixels of the picture.
    """

    feature: int
    name: str
    contribution: float
    x: float
    y: float


@dataclass(frozen=True)
class DecidingFeature:
    """A feature that the predicted class and the runner-up weigh differently, and what it adds to the difference of
    their scores.

    `of_class` gives it the larger weight; a feature of the runner-up takes from the difference what it adds there.
    """

    feature: int
    name: str
    of_class: str
    contribution: float


@dataclass(frozen=True)
class PossibleClasses:
    """Which classes are still possible at a confidence: those that go far enough along with the predicted one.

    Attributes
    ----------
    class_names : the predicted class first, then those that go along farthest. path : features of the predicted class
        that are on, strongest first. level : down to which of them the classes share the path. share : classes whose
        features are together at least this share as strong are named as well; None where no others are. calibrated_on :
        number of pictures behind the promise.
    """

    confidence: float
    class_names: tuple[str, ...]
    path: tuple[str, ...]
    level: int
    share: float | None
    calibrated_on: int


@dataclass(frozen=True)
class Answer:
    """What the model says about one picture.

    Attributes
    ----------
    file : the picture. class_name, score : the predicted class and its logit: the sum of the contributions of
        `features`, and `constant`, which is the same for every picture.
    runner_up, runner_up_score : the class with the second highest logit. features : from the largest contribution to
        the smallest.
    deciding : features that separate the two classes; with `constant_lead`, the difference of the constants, they add
        up to the difference of the scores. possible : None where no confidence was asked for.
    """

    file: str
    class_name: str
    score: float
    constant: float
    runner_up: str
    runner_up_score: float
    features: tuple[FeatureUse, ...]
    deciding: tuple[DecidingFeature, ...]
    constant_lead: float
    possible: PossibleClasses | None = None


class Skipped(NamedTuple):
    """A file that is no readable picture, and why."""

    file: str
    reason: str


class Result(NamedTuple):
    """An answer with the picture and the explanation it came from (one row), for drawing."""

    answer: Answer
    image: Image.Image
    explanation: Explanation


def find_pictures(paths: Iterable[Path]) -> list[Path]:
    """Files as they are, folders replaced by all pictures below them, in order.

    Raises
    ------
    ValueError : when there are none.
    """
    found: list[Path] = []
    for path in paths:
        below = sorted(p for p in path.rglob("*") if is_picture(p)) if path.is_dir() else [path]
        found += below
    if not found:
        raise ValueError(f"no pictures were found: files or folders with {', '.join(EXTENSIONS)} are needed")
    return list(dict.fromkeys(found))


def predict_files(
    model: DinoQPM,
    files: Sequence[Path],
    *,
    batch_size: int = 16,
    sets: HierarchicalSets | None = None,
    confidence: float = 0.9,
) -> Iterator[Result | Skipped]:
    """Answers for picture files in order, a batch at a time; a file that cannot be read becomes `Skipped` and stops
    nothing.

    Parameters
    ----------
    sets : calibrated for the model (`load_calibration`); answers then say which classes are possible at `confidence`.

    Raises
    ------
    ValueError : for a model without spatial explanations (pooling of the CLS token), or a confidence that the
        calibration does not support.
    """
    rule = supported_rule(sets, confidence) if sets else None
    for start in range(0, len(files), batch_size):
        chunk: list[tuple[Path, Image.Image | Skipped]] = []
        for path in files[start : start + batch_size]:
            try:
                chunk.append((path, read_image(path)))
            except UnreadableError as error:
                chunk.append((path, Skipped(str(path), error.reason)))
        images = [image for _, image in chunk if isinstance(image, Image.Image)]
        answers = (
            _answer([p for p, image in chunk if isinstance(image, Image.Image)], images, model) if images else iter(())
        )
        for _, image in chunk:
            if isinstance(image, Skipped):
                yield image
                continue
            result, out = next(answers)
            if sets is not None and rule is not None:
                possible = _possible(model, sets, rule, confidence, out)
                result = result._replace(answer=replace(result.answer, possible=possible))
            yield result


def _possible(model: DinoQPM, sets: HierarchicalSets, rule: Rule, confidence: float, out: Output) -> PossibleClasses:
    """The set of one picture."""
    strength = model.head.strength(out.vector.float())[0].detach().cpu()
    tree = sets.tree(strength[None], out.logits.cpu())
    names = tuple(model.class_names[c] for c in sets.members(strength, out.logits[0].cpu(), 1 - confidence))
    path = tuple(model.feature_names[f] for f in tree.path[0].tolist() if f >= 0)
    return PossibleClasses(confidence, names, path, rule.level, rule.share, rule.count)


def _answer(files: Sequence[Path], images: list[Image.Image], model: DinoQPM) -> Iterator[tuple[Result, Output]]:
    out = model.output(images)
    order = out.logits.argsort(dim=1, descending=True, stable=True)
    explanation = model.explain_tokens(out, order[:, 0])
    values = model.head.strength(out.vector.float()).detach().cpu()
    weight, constants, aspect = model.class_weight.detach().cpu(), model.head.constants.cpu(), model.backbone.aspect
    for i, (path, image) in enumerate(zip(files, images, strict=True)):
        one = Explanation(*(part[i : i + 1].cpu() for part in explanation))
        first, second = order[i, 0].item(), order[i, min(1, order.shape[1] - 1)].item()
        used = [q for q, f in enumerate(one.features[0].tolist()) if weight[first, f] != 0]
        features = [
            FeatureUse(
                feature := int(one.features[0, q]),
                model.feature_names[feature],
                float(one.contributions[0, q]),
                *peak_position(one.maps[0, q].numpy(), image.size, aspect),
            )
            for q in used
        ]
        difference = weight[first] - weight[second]
        deciding = [
            DecidingFeature(
                f, model.feature_names[f], model.class_names[first if d > 0 else second], float(d * values[i, f])
            )
            for f, d in enumerate(difference.tolist())
            if d
        ]
        answer = Answer(
            str(path),
            model.class_names[first],
            float(out.logits[i, first]),
            float(constants[first]),
            model.class_names[second],
            float(out.logits[i, second]),
            tuple(sorted(features, key=lambda use: -use.contribution)),
            tuple(sorted(deciding, key=lambda use: -abs(use.contribution))),
            float(constants[first] - constants[second]),
        )
        yield Result(answer, image, one), Output(*(part[i : i + 1] for part in out))


def peak_position(heat: np.ndarray, size: tuple[int, int], aspect: str) -> tuple[float, float]:
    """Pixel of the picture at the centre of the strongest patch."""
    row, column = np.unravel_index(np.abs(heat).argmax(), heat.shape)
    place = np.array([[(column + 0.5) / heat.shape[1], (row + 0.5) / heat.shape[0]]])
    x, y = picture_position(place, size, aspect)[0]
    return round(float(x), 1), round(float(y), 1)


def attach_backbone(model: DinoQPM, *, weights: str | None = None, device: str | torch.device = "auto") -> DinoQPM:
    """The model with the backbone it was trained on, both on a device.

    Raises
    ------
    ValueError : when the weights cannot be had, or are not those it was trained with.
    """
    from qpm_lib.core import choose_device

    target = choose_device(device) if isinstance(device, str) else device
    return model.to(target).with_backbone(model.make_backbone(weights=weights).to(target))
