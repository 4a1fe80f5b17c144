"""What one picture leaves possible, feature after feature: the classes of a binary class layer as a tree (CHiQPM,
arXiv 2511.20779).
"""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

NOTHING = -1


class Hierarchy(NamedTuple):
    """The paths of all classes through their features, strongest first, and how far each goes along with the predicted
    class.

    Attributes
    ----------
    predicted : class whose path is followed, of each picture. features : the k features of every class, strongest
        first; -1 where a feature is not on: the path ends there. values : of these features, descending. depth : the
        deepest level down to which a class has the path of the predicted one: 0 when it leaves at once, k for the
        predicted class itself.
    """

    predicted: Int[Tensor, "batch"]
    features: Int[Tensor, "batch classes k"]
    values: Float[Tensor, "batch classes k"]
    depth: Int[Tensor, "batch classes"]

    @property
    def path(self) -> Int[Tensor, "batch k"]:
        """Features of the predicted class, strongest first."""
        return self.features[torch.arange(len(self.predicted)), self.predicted]

    @property
    def path_values(self) -> Float[Tensor, "batch k"]:
        """Their values."""
        return self.values[torch.arange(len(self.predicted)), self.predicted]

    def left(self, level: int) -> Bool[Tensor, "batch classes"]:
        """Classes that are still possible at a level: all at level 0, at level k the predicted one and what cannot be
        told from it.
        """
        return self.depth >= level


def hierarchy(
    vector: Float[Tensor, "batch n"], weight: Float[Tensor, "classes n"], predicted: Int[Tensor, "batch"]
) -> Hierarchy:
    """Sort the features of every class by their strength in each picture, and compare with the predicted class.

    Class c has the path of the predicted class p down to level l when their l strongest features are the same, in the
    same order: delta_l = prod_{j <= l} [F^c_j = F^p_j]. Of features that are equally strong, the one with the smaller
    number comes first; features that are not on end a path, so that classes which differ only in those stay together.

    Parameters
    ----------
    vector : features, not negative. weight : W, binary, k ones for every class.

    Raises
    ------
    ValueError : for negative features, or a class layer that is not binary or gives classes different numbers of
        features.
    """
    k = features_per_class(weight)
    if (vector < 0).any():
        raise ValueError(f"features must not be negative (smallest: {vector.min():.3g}): a ReLU comes before them")
    used = weight.nonzero()[:, 1].view(len(weight), k)
    values, order = vector[:, used].sort(dim=2, descending=True, stable=True)
    features = used.expand(len(vector), -1, -1).gather(2, order)
    features = torch.where(values > 0, features, NOTHING)
    rows = torch.arange(len(vector), device=vector.device)
    depth = (features == features[rows, predicted][:, None]).cumprod(2).sum(2)
    return Hierarchy(predicted, features, values, depth)


def features_per_class(weight: Float[Tensor, "classes n"]) -> int:
    """k, where the class layer is binary and all classes have as many features."""
    counts = (weight != 0).sum(1)
    if not ((weight == 0) | (weight == 1)).all() or counts.min() != counts.max() or counts.min() < 1:
        raise ValueError(
            f"hierarchies need a binary class layer with k features for every class, not weights from "
            f"{weight.min():.3g} to {weight.max():.3g} with {counts.min()} to {counts.max()} features: "
            "choose selection.method=qpm"
        )
    return int(counts[0])


def path_scores(tree: Hierarchy, level: int) -> Float[Tensor, "batch classes"]:
    r"""How far every class goes along with the predicted one below a level: the lower, the more it belongs to the set.

    With :math:`L` the level and :math:`d` the first level at which class c leaves, it is
    :math:`-[\delta_L^c] (\sum_{L<j\le k} \delta_j^c f^*_j + f^{*c}_d)`: what both share below the level, and c's own
    value where it leaves (nothing if it never does). These are at most 0. A class that leaves above the level gets
    :math:`2 - \min(1, S_c / S_p)`, from 1 to 2, with :math:`S` the sum of the strengths of a class's features: what its
    features lack together of those of the predicted class [ours: 0 as published, which a class that goes along to the
    end has as well where the level is k; a limit of 0 then names all classes]. The levels that it lacks would be
    another order, but a coarse one: a single calibration picture then decides whether sets hold all classes that lack
    as many (measured over draws: ``benchmarks/sets.py``).
    """
    values = torch.nn.functional.pad(tree.path_values.cumsum(1), (1, 0))
    shared = values.gather(1, tree.depth) - values[:, level : level + 1]
    own = torch.nn.functional.pad(tree.values, (0, 1)).gather(2, tree.depth[..., None])[..., 0]
    strength = tree.values.sum(2)
    share = strength / strength.gather(1, tree.predicted[:, None]).clamp_min(torch.finfo(strength.dtype).tiny)
    return torch.where(tree.depth >= level, -(shared + own), 2 - share.clamp(0, 1))
