"""Instances of the quadratic programme at any size, shaped like real ones."""

import numpy as np
from jaxtyping import Float

from qpm_lib.selection.constants import relevance


def simulated_relevance(
    n_features: int, n_classes: int, *, seed: int = 0, samples: int = 30
) -> Float[np.ndarray, "features classes"]:
    """Relevance (F, C) of simulated features, for benchmarks and lessons at sizes no small data set has.

    Classes stand in a hierarchy of families and genera. Latent attributes belong to families, genera, single classes,
    or run across; features mix a few of them and are cut at zero. Relevance is measured on `samples` noisy samples per
    class.
    """
    rng = np.random.default_rng([seed, n_features, n_classes])
    genus = rng.integers(0, max(3, n_classes // 4), n_classes)
    family = rng.integers(0, max(2, int(n_classes**0.5 / 1.5)), genus.max() + 1)[genus]
    n_attributes = max(16, n_features // 2)
    levels = (family, genus, np.arange(n_classes))
    level, presence = rng.choice(4, n_attributes, p=[0.2, 0.3, 0.25, 0.25]), np.zeros((n_attributes, n_classes))
    for q, kind in enumerate(level):
        if kind == 3:
            shown = rng.random(n_classes) < rng.uniform(0.03, 0.15)
        else:
            group = levels[kind]
            shown = (rng.random(group.max() + 1) < 2 / (group.max() + 1))[group]
        presence[q] = shown * np.maximum(
            rng.uniform(0.6, 1.4) + 0.25 * rng.normal(size=n_classes), 0
        ) + 0.06 * rng.normal(size=n_classes)
    mixing = np.zeros((n_features, n_attributes))
    for row in mixing:
        used = rng.choice(n_attributes, 1 + min(rng.poisson(1.5), n_attributes - 1), replace=False)
        row[used] = rng.gamma(2, 0.5, len(used)) * np.where(rng.random(len(used)) < 0.85, 1, -0.6)
    noise = rng.uniform(0.2, 0.9, n_features)
    features = np.empty((n_classes * samples, n_features), np.float32)
    for c in range(n_classes):
        attributes = presence[:, c] + 0.25 * rng.normal(size=(samples, n_attributes))
        features[c * samples : (c + 1) * samples] = np.maximum(
            attributes @ mixing.T + noise * rng.normal(size=(samples, n_features)), 0
        )
    return relevance(features, np.repeat(np.arange(n_classes), samples), constant="zero")
