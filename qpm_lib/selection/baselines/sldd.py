"""The baselines SLDD (Norrenbrock et al., "Take 5", 2022) and Q-SENN (Norrenbrock et al., AAAI 2024):
sparse linear class layers.

Both choose features by a group elastic net and class weights by a sparse one. SLDD keeps real weights and a bias;
Q-SENN makes the weights ternary and chooses them anew in every round of training. Classes have k features on average,
and two classes may have the same ones.
"""

import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from qpm_lib.core import progress, write_json
from qpm_lib.selection.baselines.elastic_net import (
    Layer,
    elastic_net,
    elastic_net_path,
    group_path,
    penalty_path,
    strongest_penalty,
)
from qpm_lib.selection.result import read_saved

_GROUP_MIXING, _SPARSE_MIXING = 0.8, 0.99
_MIN_STD = 1e-5


@dataclass(frozen=True)
class SparseSelection:
    """Features and class layer of a sparse linear baseline; there is no objective to bound.

    Attributes
    ----------
    method : `sldd` or `qsenn`. features : (n,) ascending indices. weight : (C, n), zero where a class does not use a
        feature.
    bias : (C,). seconds : time taken.
    """

    method: Literal["sldd", "qsenn"]
    features: Int[np.ndarray, "n"]
    weight: Float[np.ndarray, "classes n"]
    bias: Float[np.ndarray, "classes"]
    seconds: float

    @property
    def assignment(self) -> Bool[np.ndarray, "classes n"]:
        """Which class uses which feature."""
        return self.weight != 0

    def save(self, path: Path, *, made_by: str = "") -> None:
        """Write as JSON. `made_by` is the hash of the settings, checked when the selection is used."""
        write_json(path, {**asdict(self), "made_by": made_by})

    @classmethod
    def load(cls, path: Path) -> "SparseSelection":
        """Read a saved selection.

        Raises
        ------
        ValueError : when there is none, or it contradicts itself.
        """
        values = read_saved(path)
        missing = {"method", "features", "weight", "bias", "seconds"} - set(values)
        if missing:
            raise ValueError(
                f"{path} is no selection of a sparse baseline ({', '.join(sorted(missing))} missing): "
                "run chapter 03 again"
            )
        arrays = {
            name: np.array(values[name], dtype)
            for name, dtype in (("features", int), ("weight", np.float32), ("bias", np.float32))
        }
        selection = cls(**{**values, **arrays})
        if selection.weight.shape != (len(selection.bias), len(selection.features)):
            raise ValueError(
                f"{path} contradicts itself: weights {selection.weight.shape}, {len(selection.features)} features"
            )
        return selection


def standardised(vectors: Float[Tensor, "images features"]) -> Float[Tensor, "images features"]:
    """z-scores over pictures; the standard deviation is at least 1e-5."""
    return (vectors - vectors.mean(0)) / vectors.std(0, correction=0).clamp_min(_MIN_STD)


def _keep_largest(weight: Float[Tensor, "classes n"], count: int) -> Float[Tensor, "classes n"]:
    """Only the `count` largest |w| of the whole matrix."""
    flat = weight.abs().flatten()
    kept = torch.zeros_like(flat, dtype=torch.bool)
    kept[flat.topk(min(count, len(flat))).indices] = True
    return torch.where(kept.view_as(weight), weight, 0.0)


def sldd_layer(z: Float[Tensor, "images n"], labels: Int[Tensor, "images"], n_classes: int, n_per_class: int) -> Layer:
    """Real weights: the point of the path with most weights per class, before any has more than 2 k on average,
    cut to its k C largest.
    """
    best, most = None, -1.0
    for layer in progress(elastic_net_path(z, labels, n_classes, mixing=_SPARSE_MIXING), "sparse layer", total=100):
        density = float((layer.weight != 0).sum()) / n_classes
        if density > 2 * n_per_class:
            break
        if density > most:
            best, most = layer, density
    return Layer(_keep_largest(best.weight, n_per_class * n_classes), best.bias)


def qsenn_layer(z: Float[Tensor, "images n"], labels: Int[Tensor, "images"], n_classes: int, n_per_class: int) -> Layer:
    """Ternary weights {-a, 0, a} from the end of the path, a their mean size; the bias makes up for different numbers
    of signs.

    b_c = b - (d_c - min d) 2 b / (max d - min d), d_c = positive minus negative weights of class c, b = max |bias|;
    b for all if d is constant. Only the weakest penalty is solved: its minimum does not depend on the way there,
    and the way costs ten times as much.
    """
    weakest = penalty_path(strongest_penalty(z, labels, n_classes, mixing=_SPARSE_MIXING, group=False))[-1]
    start = Layer(z.new_zeros(n_classes, z.shape[1]), z.new_zeros(n_classes))
    layer = elastic_net(z, labels, weakest, mixing=_SPARSE_MIXING, start=start, max_steps=20_000)
    kept = _keep_largest(layer.weight, n_per_class * n_classes)
    weight = kept.sign() * kept[kept != 0].abs().mean()
    surplus, top = kept.sign().sum(1), layer.bias.abs().max()
    span = (surplus.max() - surplus.min()).clamp_min(1e-12)
    return Layer(weight, top - (surplus - surplus.min()) * 2 * top / span)


LAYERS = {"sldd": sldd_layer, "qsenn": qsenn_layer}


def select_sparse(
    vectors: Float[np.ndarray, "images features"],
    labels: Int[np.ndarray, "images"],
    *,
    n_features: int,
    n_per_class: int,
    method: Literal["sldd", "qsenn"] = "sldd",
    device: torch.device | str = "cpu",
) -> SparseSelection:
    """Select features and a sparse class layer from the dense model's training features.

    All training pictures are used (the published code holds a tenth out, but chooses nothing on it).

    Parameters
    ----------
    vectors : (N, F). labels : (N,) classes 0 to C-1. n_features : n. n_per_class : k, features per class on average.

    Raises
    ------
    ValueError : for values that are not finite, n not in 1 to F, k not in 1 to n, or features of which none tells
        classes apart.
    """
    began, n_classes = time.monotonic(), int(labels.max()) + 1
    if not np.isfinite(vectors).all():
        raise ValueError(f"features hold {int((~np.isfinite(vectors)).sum())} values that are not finite")
    if not 1 <= n_features <= vectors.shape[1]:
        raise ValueError(f"n_features (={n_features}) must be from 1 to the number of features (={vectors.shape[1]})")
    if not 1 <= n_per_class <= n_features:
        raise ValueError(f"n_per_class (={n_per_class}) must be from 1 to n_features (={n_features})")
    z, y = standardised(torch.as_tensor(vectors).float().to(device)), torch.as_tensor(labels).long().to(device)
    features = sorted(group_path(z, y, n_classes, n_features, mixing=_GROUP_MIXING))
    layer = LAYERS[method](z[:, features], y, n_classes, n_per_class)
    weight, bias = (tensor.cpu().numpy() for tensor in layer)
    return SparseSelection(method, np.array(features), weight, bias, time.monotonic() - began)
