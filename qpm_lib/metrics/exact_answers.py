"""Exact answers: what a model says to a rendered picture with every subset of its parts, and what each part is worth.

Pictures of rendered birds can be drawn again without any of their parts (after FunnyBirds, ICCV 2023). With 8 parts
there are 256 subsets, few enough to draw them all: the Shapley value of a part (Shapley 1953), the average over all
orders of drawing of what the part adds to the score, is then computed and not estimated.
"""

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from qpm_lib.backbones import FrozenBackbone, state_hash
from qpm_lib.core import cache_folder, content_hash, progress, write_atomically
from qpm_lib.data import CLUTTER, ImageDataset, Scenes
from qpm_lib.metrics.parts import VARIED

SUBSETS = 2 ** len(VARIED)  # subset s holds part p where bit p of s is set
_VERSION, _BATCH = 1, 64


@cache
def _held() -> np.ndarray:
    """(subsets, parts): which part is in which subset."""
    return (np.arange(SUBSETS)[:, None] >> np.arange(len(VARIED))) & 1 == 1


def shapley(values: Float[np.ndarray, "*any subsets"]) -> Float[np.ndarray, "*any parts"]:
    """Shapley value of each part, from the score of every subset; they add up to score of all minus score of none.

    phi_p = sum over S without p of |S|! (n - |S| - 1)! / n! (v(S + p) - v(S)), Shapley (1953).

    Raises
    ------
    ValueError : when the last axis does not hold a score for every subset.
    """
    _check_subsets(values)
    n, held, size = len(VARIED), _held(), _held().sum(1)
    weight = np.array([math.factorial(s) * math.factorial(n - s - 1) / math.factorial(n) for s in range(n)] + [0.0])
    signed = np.where(held, weight[(size - 1).clip(0)][:, None], -weight[size][:, None])
    return values @ signed


def interactions(values: Float[np.ndarray, "*any subsets"]) -> Float[np.ndarray, "*any parts parts"]:
    """Shapley interaction index of each pair of parts (Grabisch and Roubens 1999), zero on the diagonal.

    Above zero two parts are worth more together than apart, below zero one can stand for the other.

    Raises
    ------
    ValueError : when the last axis does not hold a score for every subset.
    """
    _check_subsets(values)
    n, held, size = len(VARIED), _held(), _held().sum(1)
    result = np.zeros((*values.shape[:-1], n, n))
    for p in range(n):
        for q in range(p):
            others = size - held[:, p] - held[:, q]
            weight = np.array([math.factorial(s) * math.factorial(n - s - 2) / math.factorial(n - 1) for s in others])
            sign = np.where(held[:, p] == held[:, q], 1.0, -1.0)
            result[..., p, q] = result[..., q, p] = values @ (weight * sign)
    return result


def _check_subsets(values: np.ndarray) -> None:
    if not values.ndim or values.shape[-1] != SUBSETS:
        raise ValueError(
            f"values of shape {values.shape} must hold a score for each of {SUBSETS} subsets of parts in the last axis"
        )


@dataclass(frozen=True)
class ExactParts:
    """Answers of one model to all versions of some pictures.

    Attributes
    ----------
    rows : (R,) of the data set. logits : (R, 256, C) for every subset of parts, the last one being the whole bird.
    without_clutter : (R, C) for the whole bird without the shapes strewn over the background.
    """

    rows: Int[np.ndarray, "rows"]
    logits: Float[np.ndarray, "rows subsets classes"]
    without_clutter: Float[np.ndarray, "rows classes"]

    @property
    def predicted(self) -> Int[np.ndarray, "rows"]:
        """Predicted class of each whole picture."""
        return self.logits[:, -1].argmax(-1)

    def scores(
        self, classes: Int[np.ndarray, "rows"], against: Int[np.ndarray, "rows"] | None = None
    ) -> Float[np.ndarray, "rows subsets"]:
        """Logit of a class for every subset, or the lead over another class."""
        pick = np.arange(len(self.rows))
        own = self.logits[pick, :, classes].astype(np.float64)
        return own if against is None else own - self.logits[pick, :, against]


class _Versions(Dataset):
    """All versions of a picture as the backbone wants them: every subset of parts, then the one without clutter."""

    def __init__(self, dataset: ImageDataset, scenes: Scenes, rows: Sequence[int], backbone: FrozenBackbone) -> None:
        self.dataset, self.scenes, self.rows, self.preprocess = dataset, scenes, rows, backbone.preprocessing

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, i: int) -> Tensor:
        left_out = [[p for p, has in zip(VARIED, row, strict=True) if not has] for row in _held()]
        drawn = [self.scenes.render(self.dataset, self.rows[i], without=w).image for w in [*left_out, [CLUTTER]]]
        return self.preprocess([Image.fromarray(image) for image in drawn])


def exact_parts(
    models: Mapping[str, nn.Module],
    backbone: FrozenBackbone,
    dataset: ImageDataset,
    scenes: Scenes,
    rows: Sequence[int] | Int[np.ndarray, "rows"],
    *,
    folder: Path | None = None,
    workers: int = 1,
) -> dict[str, ExactParts]:
    """Show every subset of the parts of some pictures to some models, which share the drawing and the backbone.

    Answers are kept in the cache folder by picture, backbone and weights of the model, 25 KB each for 24 classes:
    a second call, or one with more pictures, does only what is new, and a stopped one goes on.

    Parameters
    ----------
    models : by any names; called with patch tokens and CLS token they return `Output`. folder : another place for the
        answers. workers : processes that draw ahead; 0 draws in this one.

    Raises
    ------
    ValueError : for an empty list of pictures.
    """
    rows = [int(row) for row in rows]
    if not rows:
        raise ValueError("no pictures were given to check: choose at least one row")
    folder = folder or cache_folder() / "exact_parts"
    files = {
        name: folder / content_hash([_VERSION, backbone.fingerprint, state_hash(model.state_dict())])
        for name, model in models.items()
    }
    keys = [_picture_key(dataset, scenes, row) for row in rows]
    known = {name: {k: _read(path / f"{k}.npy") for k in keys} for name, path in files.items()}
    todo = [i for i, k in enumerate(keys) if any(answers[k] is None for answers in known.values())]
    versions = _Versions(dataset, scenes, [rows[i] for i in todo], backbone)
    drawn = DataLoader(versions, batch_size=None, num_workers=min(workers, len(todo)))
    for i, pictures in zip(todo, progress(drawn, "parts of pictures"), strict=True):
        new = _answer(models, backbone, pictures)
        for name, path in files.items():
            known[name][keys[i]] = new[name]
            write_atomically(path / f"{keys[i]}.npy", lambda p, a=new[name]: _write(p, a))
    stacked = {name: np.stack([answers[k] for k in keys]) for name, answers in known.items()}
    return {name: ExactParts(np.array(rows), a[:, :SUBSETS], a[:, SUBSETS]) for name, a in stacked.items()}


def _picture_key(dataset: ImageDataset, scenes: Scenes, row: int) -> str:
    """Names the picture as it is on disk, and what is needed to draw it again."""
    pixels = hashlib.sha256(np.asarray(dataset.image(row)).tobytes()).hexdigest()
    return content_hash([pixels, scenes.seeds[dataset.files[row]], scenes.species[int(dataset.labels[row])]])


@torch.no_grad()
def _answer(
    models: Mapping[str, nn.Module], backbone: FrozenBackbone, pictures: Float[Tensor, "versions 3 h w"]
) -> dict[str, Float[np.ndarray, "versions classes"]]:
    found: dict[str, list[Tensor]] = {name: [] for name in models}
    for batch in pictures.split(_BATCH):
        tokens = backbone(batch)  # in full precision, also on a GPU
        for name, model in models.items():
            out = model(tokens.patches.to(model.device), tokens.cls.to(model.device))
            found[name].append(out.logits.float().cpu())
    return {name: torch.cat(parts).numpy() for name, parts in found.items()}


def _write(path: Path, answers: np.ndarray) -> None:
    with open(path, "wb") as file:
        np.save(file, answers, allow_pickle=False)


def _read(path: Path) -> np.ndarray | None:
    """Answers in a file; None where there are none or the file is damaged."""
    try:
        return np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
