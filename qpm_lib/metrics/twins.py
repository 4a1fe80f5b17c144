"""Twins, species that differ in one part: which feature tells them apart, and what is left when that part is hidden."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from PIL import Image
from torch import Tensor

from qpm_lib.conformal import HierarchicalSets
from qpm_lib.core import progress
from qpm_lib.data import PARTS, ImageDataset, Scenes
from qpm_lib.metrics.ground_truth import twin
from qpm_lib.metrics.parts import VARIED, coverage, read_out

# Pictures -> maps (B, n, g, g), strengths of features (B, n), logits (B, C).
Answers = Callable[
    [Sequence[Image.Image]],
    tuple[Float[Tensor, "batch n g g"], Float[Tensor, "batch n"], Float[Tensor, "batch classes"]],
]


class TwinSplit(NamedTuple):
    """What separates a picture's class from its twin, and what happens without it.

    Attributes
    ----------
    row : of the picture, which the model answers rightly. twin : the other species. part : in which they differ.
    feature : that only one of the two has, at the level at which the twin leaves the path of the class (of the two
        features there, it is the stronger one); -1 where none is on there. shown : the part of which that feature's map
        says most. before, after : the prediction set, and the one with the part drawn away.
    """

    row: int
    label: int
    twin: int
    part: str
    feature: int
    shown: str
    before: Bool[np.ndarray, "classes"]
    after: Bool[np.ndarray, "classes"]

    @property
    def on_part(self) -> bool:
        """Whether the feature that separates the twins lies on the part in which they differ."""
        return self.part == self.shown


def twin_splits(
    answers: Answers,
    sets: HierarchicalSets,
    dataset: ImageDataset,
    scenes: Scenes,
    rows: Sequence[int],
    *,
    alpha: float = 0.1,
) -> list[TwinSplit]:
    """The split in each of some pictures; species without a twin, and pictures answered wrongly, are left out.

    A map says of each part what comes nearest to it when parts are painted on the patch grid (`read_out`).
    """
    found = []
    for row in progress(rows, "twins"):
        label = int(dataset.labels[row])
        other = twin(scenes.species, label)
        if other is None:
            continue
        whole, hidden = scenes.render(dataset, row), scenes.render(dataset, row, without=(other[1],))
        maps, vector, logits = answers([Image.fromarray(drawn.image) for drawn in (whole, hidden)])
        if int(logits[0].argmax()) != label:
            continue
        tree, both = sets.tree(vector, logits), sets.predict(vector, logits, alpha).numpy()
        feature, shown = _splitting(tree.features[0], tree.values[0], int(tree.depth[0, other[0]]), label, other[0]), ""
        if feature >= 0:
            regions = np.stack([whole.parts == PARTS.index(part) for part in VARIED])
            rest = ~regions.any(0, keepdims=True)
            weights = read_out(coverage(np.concatenate([regions, rest]), maps.shape[-1]))
            shown = VARIED[int(np.tensordot(weights[:-1], maps[0, feature].numpy(), 2).argmax())]
        found.append(TwinSplit(row, label, other[0], other[1], feature, shown, both[0], both[1]))
    return found


def _splitting(
    features: Int[Tensor, "classes k"], values: Float[Tensor, "classes k"], level: int, label: int, other: int
) -> int:
    """The feature by which two paths part: the weaker one of the two at that level may belong to both classes."""
    if level == features.shape[1]:
        return -1
    return int(features[label if values[label, level] >= values[other, level] else other, level])
