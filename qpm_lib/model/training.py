"""The training loop of all models, with its optimiser (the embedded backbone is pre-trained by another one)."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Int
from schedulefree import AdamWScheduleFree
from torch import Tensor, nn

from qpm_lib.backbones import state_hash
from qpm_lib.core import Checkpoint, TrainingConfig, content_hash, go_on, mixed_precision, progress, seed_everything
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
    checkpoint: Path | None = None,
) -> list[Epoch]:
    """Train a model on the training rows of a store with schedule-free AdamW (Defazio et al., 2024).

    The model is changed in place and left in evaluation mode with the averaged weights of the optimiser.
    The last epoch is kept; nothing is chosen on test data. bf16 autocast is used on a GPU. Same seed,
    machine and device: same result.

    Parameters
    ----------
    on_epoch : called after each epoch of this call. checkpoint : a file in which the state is kept every 20 s. A
        stopped call goes on from there, with the same result (on a CPU to the bit). It stays until the caller has kept
        the model, and a call that finds it finished only reads it.

    Raises
    ------
    ValueError : when the loss stops being finite; the epoch and the learning rate are named.
    """
    generator = seed_everything(seed)
    rows = store.rows(train=True)
    optimiser = AdamWScheduleFree(
        [p for p in model.parameters() if p.requires_grad], lr=config.lr, weight_decay=config.weight_decay
    )
    started = [asdict(config), seed, state_hash(model.state_dict()), store.backbone_fingerprint, rows.tolist()]
    kept = Checkpoint(checkpoint, content_hash(started) if checkpoint else "")
    state = _State.begin(generator)
    if found := kept.resume(model, optimiser):
        state = _State.read(*found, store.device)
        log.info("training goes on in epoch %d", state.epoch)
    for epoch in progress(
        range(state.epoch, config.epochs + 1), "training", total=config.epochs, initial=state.epoch - 1
    ):
        model.train()
        optimiser.train()
        generator.set_state(state.order)
        batches = store.batches(rows, config.batch_size, generator=generator, skip=state.batches)
        for number, batch in enumerate(batches, state.batches + 1):
            state.restore()
            with mixed_precision(store.device):
                out = model(batch.patches, batch.cls)
            terms = loss_terms(out, batch.labels, model.class_weight, config)
            optimiser.zero_grad()
            total(terms).backward()
            optimiser.step()
            state.count(number, out.logits, batch.labels, terms)
            if kept.due:
                kept.keep(model, optimiser, *state.written())
        record = state.finish(epoch, generator)
        if not np.isfinite(sum(record.terms.values())):
            raise ValueError(f"the loss is not finite in epoch {epoch} at lr={config.lr}: lower the learning rate")
        log.info("epoch %d: accuracy %.3f, %s", epoch, record.accuracy, record.terms)
        if on_epoch:
            on_epoch(record)
    kept.keep(model, optimiser, *state.written())
    _average_statistics(model, optimiser, store, rows, config)
    return state.history


@dataclass
class _State:
    """Where a training stands: the epoch, the batches of it that are done, and what was counted in them.

    Attributes
    ----------
    order : state of the generator at the beginning of the epoch, which shuffles it. random : of torch, for dropout,
        where the training goes on; None once it does.
    """

    epoch: int
    batches: int
    order: Tensor
    seen: int
    correct: Tensor | int
    sums: dict[str, Tensor | float]
    history: list[Epoch]
    random: dict[str, Tensor] | None = None

    @classmethod
    def begin(cls, generator: torch.Generator) -> "_State":
        return cls(1, 0, generator.get_state(), 0, 0, {}, [])

    @classmethod
    def read(cls, words: Mapping[str, Any], tensors: Mapping[str, Tensor], device: torch.device) -> "_State":
        sums = {name: tensors[f"sum {name}"].to(device) for name in words["terms"]}
        history = [Epoch(int(number), accuracy, terms) for number, accuracy, terms in words["history"]]
        counts = words["epoch"], words["batches"], tensors["order"], words["seen"], tensors["correct"].to(device)
        return cls(*counts, sums, history, dict(tensors))

    def written(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        words = {"epoch": self.epoch, "batches": self.batches, "seen": self.seen, "terms": list(self.sums)}
        tensors = {f"sum {name}": torch.as_tensor(value) for name, value in self.sums.items()}
        tensors |= {"order": self.order, "correct": torch.as_tensor(self.correct)}
        return words | {"history": [list(epoch) for epoch in self.history]}, tensors

    def restore(self) -> None:
        """Let the random numbers go on, before the first batch of a training that does."""
        if self.random:
            go_on(self.random)
            self.random = None

    def count(self, number: int, logits: Tensor, labels: Tensor, terms: Mapping[str, Tensor]) -> None:
        self.batches = number
        self.seen += len(labels)
        self.correct = self.correct + (logits.detach().argmax(1) == labels).sum()
        for name, value in terms.items():
            self.sums[name] = self.sums.get(name, 0.0) + value.detach() * len(labels)

    def finish(self, epoch: int, generator: torch.Generator) -> Epoch:
        """The means over the epoch; the next one begins."""
        means = {name: float(value) / self.seen for name, value in self.sums.items()}
        self.history.append(Epoch(epoch, float(self.correct) / self.seen, means))
        self.epoch, self.batches, self.order = epoch + 1, 0, generator.get_state()
        self.seen, self.correct, self.sums = 0, 0, {}
        return self.history[-1]


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
    model.train()
    sample = rows[torch.linspace(0, len(rows) - 1, min(len(rows), 50 * config.batch_size)).long()]
    for number, batch in enumerate(store.batches(sample, config.batch_size), 1):
        for norm in norms:  # the mean of all batches so far; with None, torch reads its own count from the device
            norm.momentum = 1 / number
        model(batch.patches, batch.cls)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    model.eval()
