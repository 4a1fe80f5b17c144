"""What fewer features cost: the same dense model, selected and fine-tuned for several n and k."""

from collections.abc import Sequence
from dataclasses import replace
from math import comb
from typing import NamedTuple

from qpm_lib.core import RunConfig, progress
from qpm_lib.data import ImageDataset
from qpm_lib.features import FeatureStore
from qpm_lib.metrics.evaluation import Evaluation, evaluate
from qpm_lib.model import DenseModel, feature_vectors, fine_tune, map_locality
from qpm_lib.selection import relevance, solve_as_set


class TradeOff(NamedTuple):
    """A QPM with n features in all and k per class, and its measures."""

    n_features: int
    n_per_class: int
    gap: float
    evaluation: Evaluation


_GAP = 0.01


def trade_off(
    dense: DenseModel,
    store: FeatureStore,
    dataset: ImageDataset,
    config: RunConfig,
    settings: Sequence[tuple[int, int]],
    *,
    epochs: int | None = None,
    time_limit: float = 60.0,
) -> list[TradeOff]:
    """Select, fine-tune and evaluate a QPM for each (n, k).

    Settings that cannot be had (n above the number of dense features, k above n, too few different sets) are left out.

    Parameters
    ----------
    settings : pairs (n_features, n_per_class). epochs : of fine-tuning; by default those of `config`. time_limit :
        seconds per selection, if `config` does not say less. A gap of 1 % is enough for a point of a curve, unless
        `config` allows more; the proven gap is part of the result.

    Raises
    ------
    ValueError : when the settings are those of a baseline, whose fine-tuning is another.
    """
    if config.selection.method != "qpm":
        raise ValueError(f"selection.method (={config.selection.method!r}) must be qpm: the curves are those of QPM")
    limit, gap = min(time_limit, config.selection.time_limit), max(_GAP, config.selection.gap)
    rows, seed = store.rows(train=True), config.seed
    vectors = feature_vectors(dense, store, rows)
    a = relevance(vectors, store.labels[rows].numpy(), constant="zero")
    keeps = map_locality(dense, store, seed=seed) if config.selection.locality else None
    tuning = replace(config.fine_tune, epochs=epochs or config.fine_tune.epochs)
    possible = [(n, k) for n, k in settings if k <= n <= a.shape[0] and comb(n, k) >= a.shape[1]]
    points = []
    for n, k in progress(possible, "trade-off"):
        asked = replace(config.selection, n_features=n, n_per_class=k, gap=gap, time_limit=limit)
        chosen = solve_as_set(a, asked, keeps=keeps, seed=seed)
        model, _ = fine_tune(dense, chosen, store, replace(config, fine_tune=tuning))
        points.append(TradeOff(n, k, chosen.gap, evaluate(model, store, dataset, k=k, seed=seed)))
    return points
