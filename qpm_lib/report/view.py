"""A model and its answers as the pages see them: names, colours, sets of features, pictures to show."""

from pathlib import Path

import numpy as np

from qpm_lib.conformal import HierarchicalSets
from qpm_lib.data import read_image
from qpm_lib.explain import Inspection
from qpm_lib.model import DinoQPM
from qpm_lib.plotting import Canvas, feature_colours, to_jpeg
from qpm_lib.runs import MethodMaps, Snapshot

_PANEL = 135  # seven panels fit the page


class ModelView:
    """What all pages of one model share; pictures they need are written below `folder`.

    Parameters
    ----------
    snapshot : its answers, with `pictures/` already in `folder`. others : maps of explanation methods for its pictures.
        clusters : what the encoder groups together in them. sets : what the model promises.

    Attributes
    ----------
    weight (C, n), bias, constants (C,), used (C, n) : the class layer. alike : whether a class is a set of features,
        and nothing else.
    others : by method, maps of the kept pictures; empty where there are none that fit. clusters : None likewise.
    truth, answer : (m,) classes of the kept pictures. right, total : (C,) test pictures answered rightly, and in all.
    """

    def __init__(
        self,
        model: DinoQPM,
        snapshot: Snapshot,
        folder: Path,
        *,
        others: MethodMaps | None = None,
        clusters: Inspection | None = None,
        sets: HierarchicalSets | None = None,
    ) -> None:
        self.model, self.snapshot, self.folder, self.sets = model, snapshot, folder, sets
        fits = others is not None and np.array_equal(others.rows, snapshot.rows)
        self.others = dict(others.maps) if fits else {}
        known = clusters is not None and clusters.names == tuple(str(row) for row in snapshot.rows)
        self.clusters = clusters if known else None
        self.weight, self.bias = model.class_weight.cpu().numpy(), model.head.bias.cpu().numpy()
        self.constants = model.head.constants.cpu().numpy()
        self.used, self.colours = self.weight != 0, feature_colours(self.weight)
        strengths = np.unique(self.weight[self.used])
        self.alike = bool(len(strengths) == 1 and strengths[0] > 0 and np.ptp(self.bias) == 0)
        self.class_names, self.feature_names = model.class_names, model.feature_names
        self.truth, self.answer = snapshot.labels[snapshot.kept], snapshot.predicted[snapshot.kept]
        self.total = np.bincount(snapshot.labels, minlength=len(self.class_names))
        right = snapshot.labels[snapshot.labels == snapshot.predicted]
        self.right = np.bincount(right, minlength=len(self.class_names))

    @property
    def matrix_words(self) -> str:
        """How to read the matrix."""
        hollow = " A hollow square is a feature that speaks against the class." if (self.weight < 0).any() else ""
        return f"Every square is a class (row) that has a feature (column); neighbours share features.{hollow}"

    def features_of(self, c: int) -> list[int]:
        """Features of a class."""
        return np.flatnonzero(self.used[c]).tolist()

    def classes_with(self, f: int) -> list[int]:
        """Classes that use a feature."""
        return np.flatnonzero(self.used[:, f]).tolist()

    def has_examples(self, f: int) -> bool:
        """Whether the model folder shows what a feature answers to."""
        return (self.folder / "examples" / f"feature_{f:02d}.jpg").exists()

    def row(self, position: int) -> int:
        """Row in the data set of a kept picture."""
        return int(self.snapshot.rows[position])

    def is_wrong(self, position: int) -> bool:
        """Whether a kept picture was answered wrongly."""
        return bool(self.truth[position] != self.answer[position])

    def said(self, position: int) -> str:
        """True class and answer of a kept picture."""
        truth, answer = self.class_names[self.truth[position]], self.class_names[self.answer[position]]
        return f"{truth}, " + (f"predicted {answer}" if self.is_wrong(position) else "right")

    def strip(self, position: int, groups: list[list[int]], name: str) -> str:
        """Write a strip: the picture, then one panel for each group of features; return its path."""
        heat = self.snapshot.heat(position)
        canvas = Canvas(
            read_image(self.folder / "pictures" / f"{self.row(position)}.jpg"),
            {f: heat[f] for f in sorted({f for group in groups for f in group})},
            self.colours,
            side=_PANEL,
        )
        panels = [canvas.plain, *(canvas.blend(group) if group else canvas.plain for group in groups)]
        (self.folder / "strips").mkdir(exist_ok=True)
        (self.folder / "strips" / f"{name}.jpg").write_bytes(to_jpeg(np.concatenate(panels, axis=1)))
        return f"strips/{name}.jpg"
