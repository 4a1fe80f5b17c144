"""A model's answers as pictures and numbers: what the pages of the report and its explorer are made from,
without the model.
"""

import shutil
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8

from qpm_lib.core import progress, save_arrays, saved_arrays, write_atomically
from qpm_lib.data import ImageDataset
from qpm_lib.features import FeatureStore
from qpm_lib.model import DinoQPM, outputs, outputs_of

_SIDE, _LEAST, _MAP_BYTES = 224, 240, 16_000_000


@dataclass(frozen=True)
class Snapshot:
    """Answers to all test pictures, and what was seen in some of them.

    Attributes
    ----------
    labels, predicted : (N,) true and predicted class of every test picture. typical : (C, n)
    median strength (f / std) of the features over the rightly answered test pictures of each class (over all of them
    where none is answered rightly). kept : (m,) positions in 0 to N-1 of the pictures that are kept: mistakes first
    (the surest ones first), then pictures that were answered rightly, of each class the most typical one first.
    rows : (m,) their rows in the data set, which also name the files `pictures/<row>.jpg`. values : (m, n) strength
    of features. below : (m, n) share of the pictures behind `typical` in which the feature is weaker than in this
    one. maps : (m, n, g, g) size of the map of each feature, as parts of 255 of `peaks` (m, n).
    """

    labels: Int[np.ndarray, "images"]
    predicted: Int[np.ndarray, "images"]
    typical: Float[np.ndarray, "classes n"]
    kept: Int[np.ndarray, "m"]
    rows: Int[np.ndarray, "m"]
    values: Float[np.ndarray, "m n"]
    below: Float[np.ndarray, "m n"]
    maps: UInt8[np.ndarray, "m n g g"]
    peaks: Float[np.ndarray, "m n"]

    def heat(self, position: int) -> Float[np.ndarray, "n g g"]:
        """Maps of a kept picture."""
        return self.maps[position].astype(np.float32) * (self.peaks[position] / 255)[:, None, None]

    @classmethod
    def load(cls, folder: Path) -> "Snapshot":
        """Read a folder that `take_snapshot` made.

        Raises
        ------
        ValueError : when there is none, or it is damaged.
        """
        with saved_arrays(folder, "snapshot", what="snapshot", chapter="07") as (arrays, _):
            snapshot = cls(**arrays)
            missing = [row for row in snapshot.rows.tolist() if not (folder / "pictures" / f"{row}.jpg").exists()]
            if missing:
                raise ValueError(f"it lacks {len(missing)} pictures, the first is {missing[0]}.jpg")
        return snapshot


def choose_pictures(
    labels: Int[np.ndarray, "images"],
    predicted: Int[np.ndarray, "images"],
    margin: Float[np.ndarray, "images"],
    distance: Float[np.ndarray, "images"],
    *,
    count: int,
    rng: np.random.Generator,
) -> Int[np.ndarray, "m"]:
    """Positions to keep: of every class the most typical right one, then a quarter of `count` mistakes,
    the surest first, then random others.

    Where one kind does not fill its share, the other has more. Mistakes stand first in the result.
    """
    wrong, lists = np.flatnonzero(labels != predicted), []
    for c in rng.permutation(labels.max() + 1):
        right = np.flatnonzero((labels == c) & (predicted == c))
        if len(right):
            first = right[distance[right].argmin()]
            lists.append([first, *rng.permutation(right[right != first])])
    share = min(max(count // 4, count - (len(labels) - len(wrong))), max(0, count - len(lists)))
    wrong = wrong[np.argsort(-margin[wrong], kind="stable")][:share]
    chosen: list[int] = []
    for turn in range(max(map(len, lists), default=0)):
        chosen += [members[turn] for members in lists if turn < len(members)]
    chosen = chosen[: count - len(wrong)]
    return np.concatenate([wrong, sorted(chosen, key=lambda i: labels[i])]).astype(
        int
    )  # stable: the typical one stays first


def take_snapshot(
    model: DinoQPM,
    dataset: ImageDataset,
    store: FeatureStore,
    folder: Path,
    *,
    count: int | None = None,
    seed: int = 0,
    made_by: str = "",
) -> Snapshot:
    """Answer every test picture, keep some of them with their maps, and write all of it.

    Writes `pictures/<row>.jpg` (what the backbone saw, at most 224 pixels), `snapshot.safetensors` and, last,
    `snapshot.json`.

    Parameters
    ----------
    count : pictures to keep, None for two per class and at least 240; fewer where their maps would take more than 16
        MB.
    made_by : hash of the settings.
    """
    tests = store.rows(train=False)
    vectors, logits = zip(
        *((model.head.strength(out.vector).cpu(), out.logits.cpu()) for out, _ in outputs(model, store, tests)),
        strict=True,
    )
    values, scores, labels = (
        torch.cat(vectors).detach().numpy(),
        torch.cat(logits).detach().numpy(),
        store.labels[tests].numpy(),
    )
    predicted = scores.argmax(1)
    usual = [
        values[mine if (mine := (labels == c) & (predicted == c)).any() else labels == c]
        for c in range(len(dataset.class_names))
    ]
    typical = np.stack([np.median(group, axis=0) for group in usual])
    margin = scores.max(1) - scores[np.arange(len(labels)), labels]
    count = max(1, min(count or max(_LEAST, 2 * len(usual)), _MAP_BYTES // (values.shape[1] * store.grid**2)))
    distance = np.linalg.norm(values - typical[labels], axis=1)
    kept = choose_pictures(labels, predicted, margin, distance, count=count, rng=np.random.default_rng(seed))
    rows, below = (
        tests.numpy()[kept],
        np.stack([(usual[labels[i]] < values[i]).mean(0, dtype=np.float32) for i in kept]),
    )
    maps = outputs_of(model, store, torch.as_tensor(rows)).maps.abs().cpu().numpy()
    peaks = maps.max((2, 3))
    bytes_ = np.round(255 * maps / np.maximum(peaks, 1e-12)[..., None, None]).astype(np.uint8)
    snapshot = Snapshot(labels, predicted, typical.astype(np.float32), kept, rows, values[kept], below, bytes_, peaks)
    _write(snapshot, model, dataset, folder, made_by)
    return snapshot


def _write(snapshot: Snapshot, model: DinoQPM, dataset: ImageDataset, folder: Path, made_by: str) -> None:
    (folder / "snapshot.json").unlink(missing_ok=True)
    shutil.rmtree(folder / "pictures", ignore_errors=True)
    side = min(_SIDE, model.backbone.preprocessing.image_size)
    for row in progress(snapshot.rows.tolist(), "pictures of the report"):
        image = model.backbone.square(dataset.image(row), side)
        write_atomically(
            folder / "pictures" / f"{row}.jpg", lambda temporary, image=image: image.save(temporary, "JPEG", quality=88)
        )
    arrays = {field.name: getattr(snapshot, field.name) for field in fields(snapshot)}
    card = {"made_by": made_by, "pictures": len(snapshot.rows), "answered": len(snapshot.labels)}
    save_arrays(folder, "snapshot", arrays, card)
