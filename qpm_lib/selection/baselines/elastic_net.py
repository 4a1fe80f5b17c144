"""Multinomial logistic regression with an elastic net, along a path of penalties: what the sparse baselines are made
of.

minimise (1/N) sum CE(W x + b, y) + strength * (mixing * |W| + (1 - mixing) / 2 * ||W||^2), where |W| is the sum of
absolute values, or, with `group`, the sum of the norms of the columns (one per feature). scikit-learn's `saga` solves
the first form only, and one penalty at a time; both forms here are one accelerated proximal gradient method (FISTA,
Beck and Teboulle 2009) on whole batches, on any device.
"""

import logging
from collections.abc import Iterator
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

log = logging.getLogger(__name__)


class Layer(NamedTuple):
    """A linear class layer: weight (C, F) and bias (C,)."""

    weight: Float[Tensor, "classes features"]
    bias: Float[Tensor, "classes"]


def residual(
    x: Float[Tensor, "images features"], target: Float[Tensor, "images classes"], layer: Layer
) -> Float[Tensor, "images classes"]:
    """Predicted probabilities minus the truth: the gradient of the mean cross-entropy is residual.T @ x / N."""
    return (x @ layer.weight.T + layer.bias).softmax(1) - target


def strongest_penalty(
    x: Float[Tensor, "images features"], labels: Int[Tensor, "images"], n_classes: int, *, mixing: float, group: bool
) -> float:
    """The smallest strength at which all weights are zero."""
    target = F.one_hot(labels, n_classes).to(x)
    gradient = (target - target.mean(0)).T @ x / len(x)
    return float((gradient.norm(dim=0) if group else gradient.abs()).max() / mixing)


def _shrink(weight: Float[Tensor, "classes features"], amount: float, group: bool) -> Float[Tensor, "classes features"]:
    size = weight.norm(dim=0) if group else weight.abs()
    return weight * (1 - amount / size.clamp_min(1e-30)).clamp_min(0)


def elastic_net(
    x: Float[Tensor, "images features"],
    labels: Int[Tensor, "images"],
    strength: float,
    *,
    mixing: float,
    group: bool = False,
    start: Layer,
    tolerance: float = 1e-3,
    max_steps: int = 5000,
) -> Layer:
    """The minimum for one strength; `start` is where to begin, and says how many classes there are.

    Stops when no entry of the proximal gradient exceeds `tolerance` times the penalty on a weight;
    the log says when `max_steps` come first.
    """
    target, n = F.one_hot(labels, len(start.bias)).to(x), len(x)
    design = torch.cat([x, x.new_ones(n, 1)], 1)
    lipschitz = 0.5 * float(torch.linalg.matrix_norm(design.T @ design, 2)) / n + strength * (1 - mixing)
    current = ahead = torch.cat([start.weight, start.bias[:, None]], 1)
    momentum = 1.0
    for _ in range(max_steps):
        gradient = residual(x, target, Layer(ahead[:, :-1], ahead[:, -1])).T @ design / n
        gradient[:, :-1] += strength * (1 - mixing) * ahead[:, :-1]
        point, moved = ahead, ahead - gradient / lipschitz
        moved[:, :-1] = _shrink(moved[:, :-1], strength * mixing / lipschitz, group)
        if float(((ahead - moved) * (moved - current)).sum()) > 0:
            momentum, ahead = 1.0, moved  # momentum points uphill: start it again (O'Donoghue and Candes 2015)
        else:
            grown = (1 + (1 + 4 * momentum**2) ** 0.5) / 2
            ahead = moved + (momentum - 1) / grown * (moved - current)
            momentum = grown
        current = moved
        if lipschitz * float((moved - point).abs().max()) <= tolerance * strength * mixing:
            break
    else:
        log.warning("elastic net at strength %.3g did not converge in %d steps", strength, max_steps)
    return Layer(current[:, :-1], current[:, -1])


def penalty_path(strongest: float) -> list[float]:
    """A hundred strengths from `strongest` down to a thousandth of it, in equal ratios.

    Raises
    ------
    ValueError : when `strongest` is zero: no weight is worth anything.
    """
    if not strongest > 1e-12:
        raise ValueError("no feature tells the classes apart: train the dense model longer")
    return [strongest * 1e-3 ** (i / 99) for i in range(100)]


def elastic_net_path(
    x: Float[Tensor, "images features"], labels: Int[Tensor, "images"], n_classes: int, *, mixing: float
) -> Iterator[Layer]:
    """The minimum for every strength of the path, each started from the one before; element-wise penalty."""
    layer = Layer(x.new_zeros(n_classes, x.shape[1]), x.new_zeros(n_classes))
    for strength in penalty_path(strongest_penalty(x, labels, n_classes, mixing=mixing, group=False)):
        layer = elastic_net(x, labels, strength, mixing=mixing, start=layer)
        yield layer


def group_path(
    x: Float[Tensor, "images features"],
    labels: Int[Tensor, "images"],
    n_classes: int,
    n_features: int,
    *,
    mixing: float,
) -> list[int]:
    """The first `n_features` features that a column-group elastic net admits along its path, in the order of admission.

    Only admitted columns may have weights. At each strength the column whose gradient is furthest above the penalty
    comes in, one at a time; when none is, the strength falls. (Restarting the path after every admission, as published,
    passes the same points again: a column below its threshold changes nothing.) Should the path end early,
    the columns with the largest gradients fill up.
    """
    target, n = F.one_hot(labels, n_classes).to(x), len(x)
    admitted: list[int] = []
    layer = Layer(x.new_zeros(n_classes, 0), target.mean(0).log().clamp_min(-20))
    path = penalty_path(strongest_penalty(x, labels, n_classes, mixing=mixing, group=True))
    for last, strength in ((q == len(path) - 1, s) for q, s in enumerate(path)):
        while True:
            if admitted:
                layer = elastic_net(x[:, admitted], labels, strength, mixing=mixing, group=True, start=layer)
            gradient = (residual(x[:, admitted], target, layer).T @ x / n).norm(dim=0)
            gradient[admitted] = -1.0
            pick = int(gradient.argmax())
            if not last and float(gradient[pick]) <= strength * mixing * (1 - 1e-6):
                break
            admitted.append(pick)
            if len(admitted) == n_features:
                return admitted
            layer = Layer(torch.cat([layer.weight, layer.weight.new_zeros(n_classes, 1)], 1), layer.bias)
    return admitted
