"""The training loop of all models, with its optimiser (the embedded backbone is pre-trained by another one)."""

import logging
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Int
from schedulefree import AdamWScheduleFree
from torch import Tensor, nn

from qpm_lib.core import TrainingConfig, mixed_precision, progress, seed_everything
from qpm_lib.features import FeatureStore
from qpm_lib.model.losses import loss_terms, total

log = logging.getLogger(__name__)


class Epoch(NamedTuple):
    """Means over one epoch: each weighted loss term, and the training accuracy."""

    epoch: int
    accuracy: float
    terms: dict[str, float]


def fit(
    model: nn.Module,
    store: FeatureStore,
    config: TrainingConfig,
    *,
    seed: int,
    on_epoch: Callable[[Epoch], None] | None = None,
) -> list[Epoch]:
    """Train a model on the training rows of a store with schedule-free AdamW (Defazio et al., 2024).

    The model is changed in place and left in evaluation mode with the averaged weights of the optimiser.
    The last epoch is kept; nothing is chosen on test data. bf16 autocast is used on a GPU. Same seed,
    machine and device: same result.

    Raises
    ------
    ValueError : when the loss stops being finite; the epoch and the learning rate are named.
    """
    generator = seed_everything(seed)
    rows = store.rows(train=True)
    optimiser = AdamWScheduleFree(
        [p for p in model.parameters() if p.requires_grad], lr=config.lr, weight_decay=config.weight_decay
    )
    history = []
    for epoch in progress(range(1, config.epochs + 1), "training"):
        model.train()
        optimiser.train()
        seen, correct, sums = 0, torch.zeros((), device=store.device), {}
        for batch in store.batches(rows, config.batch_size, generator=generator):
            with mixed_precision(store.device):
                out = model(batch.patches, batch.cls)
            terms = loss_terms(out, batch.labels, model.class_weight, config)
            optimiser.zero_grad()
            total(terms).backward()
            optimiser.step()
            seen += len(batch.labels)
            correct += (out.logits.detach().argmax(1) == batch.labels).sum()
            for name, value in terms.items():
                sums[name] = sums.get(name, 0) + value.detach() * len(batch.labels)
        record = Epoch(epoch, float(correct) / seen, {name: float(value) / seen for name, value in sums.items()})
        if not np.isfinite(sum(record.terms.values())):
            raise ValueError(f"the loss is not finite in epoch {epoch} at lr={config.lr}: lower the learning rate")
        log.info("epoch %d: accuracy %.3f, %s", epoch, record.accuracy, record.terms)
        history.append(record)
        if on_epoch:
            on_epoch(record)
    _average_statistics(model, optimiser, store, rows, config)
    return history


@torch.no_grad()
def _average_statistics(
    model: nn.Module,
    optimiser: AdamWScheduleFree,
    store: FeatureStore,
    rows: Int[Tensor, "rows"],
    config: TrainingConfig,
) -> None:
    """Switch to the averaged weights and recompute the BatchNorm statistics for them, as the optimiser's authors
    advise.
    """
    optimiser.eval()
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm1d)]
    momenta = [m.momentum for m in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
    model.train()
    sample = rows[torch.linspace(0, len(rows) - 1, min(len(rows), 50 * config.batch_size)).long()]
    for batch in store.batches(sample, config.batch_size):
        model(batch.patches, batch.cls)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    model.eval()
