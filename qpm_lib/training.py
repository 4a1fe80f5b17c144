"""The only training loop, and what is trained with it."""

import logging
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Int
from schedulefree import AdamWScheduleFree
from torch import Tensor, nn

from qpm_lib.adapter import DenseModel, LinearProbe, Output
from qpm_lib.config import RunConfig, TrainingConfig
from qpm_lib.features import FeatureStore
from qpm_lib.losses import loss_terms, total
from qpm_lib.model import DinoQPM
from qpm_lib.progress import progress
from qpm_lib.seeding import seed_everything
from qpm_lib.selection import Selection, SparseSelection
from qpm_lib.selection.sldd import qsenn_layer, standardised

log = logging.getLogger(__name__)


@runtime_checkable
class Classifier(Protocol):
    """What the loop and the metrics need of a model."""

    class_weight: Tensor
    device: torch.device

    def __call__(self, patches: Tensor, cls: Tensor) -> Output:
        """Maps, vector and logits."""
        ...


class Epoch(NamedTuple):
    """Means over one epoch: each weighted loss term, and the training accuracy."""

    epoch: int
    accuracy: float
    terms: dict[str, float]


def fit(
    model: nn.Module, store: FeatureStore, config: TrainingConfig, *, seed: int, on_epoch: Callable[[Epoch], None] | None = None
) -> list[Epoch]:
    """Train a model on the training rows of a store with schedule-free AdamW (Defazio et al., 2024).

    The model is changed in place and left in evaluation mode with the averaged weights of the optimiser. The last epoch is kept;
    nothing is chosen on test data. bf16 autocast is used on a GPU. Same seed, machine and device: same result.

    Raises
    ------
    ValueError : when the loss stops being finite; the epoch and the learning rate are named.
    """
    generator = seed_everything(seed)
    rows = store.rows(train=True)
    optimiser = AdamWScheduleFree([p for p in model.parameters() if p.requires_grad], lr=config.lr, weight_decay=config.weight_decay)
    history = []
    for epoch in progress(range(1, config.epochs + 1), "training"):
        model.train()
        optimiser.train()
        seen, correct, sums = 0, torch.zeros((), device=store.device), {}
        for batch in store.batches(rows, config.batch_size, generator=generator):
            with torch.autocast(store.device.type, torch.bfloat16, enabled=store.device.type == "cuda"):
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
    model: nn.Module, optimiser: AdamWScheduleFree, store: FeatureStore, rows: Int[Tensor, "rows"], config: TrainingConfig
) -> None:
    """Switch to the averaged weights and recompute the BatchNorm statistics for them, as the optimiser's authors advise."""
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


def outputs(
    model: Classifier, store: FeatureStore, rows: Int[Tensor, "rows"], batch_size: int = 64
) -> Iterator[tuple[Output, Int[Tensor, "batch"]]]:
    """Outputs of a model over some rows in order, batch by batch, with the labels."""
    for batch in store.batches(rows, batch_size):
        with torch.no_grad(), torch.autocast(store.device.type, torch.bfloat16, enabled=store.device.type == "cuda"):
            out = model(batch.patches, batch.cls)
        yield Output(*(t.float() for t in out)), batch.labels


def feature_vectors(model: Classifier, store: FeatureStore, rows: Int[Tensor, "rows"]) -> Float[np.ndarray, "rows features"]:
    """Pooled features of some rows, in evaluation mode."""
    return np.concatenate([out.vector.cpu().numpy() for out, _ in outputs(model, store, rows)])


def accuracy(model: Classifier, store: FeatureStore, *, train: bool = False) -> float:
    """Share of correct predictions on the test split, or on the training split."""
    rows = store.rows(train)
    return sum(int((out.logits.argmax(1) == labels).sum()) for out, labels in outputs(model, store, rows)) / len(rows)


def train_linear_probe(store: FeatureStore, *, seed: int = 0, strengths: tuple[float, ...] = (0.01, 0.1, 1.0)) -> LinearProbe:
    """Logistic regression on z-scored CLS tokens (scikit-learn), its strength chosen on a tenth of the training pictures.

    Classes with a single training picture cannot be split; the middle strength is taken then.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedShuffleSplit
    from sklearn.preprocessing import StandardScaler

    rows = store.rows(train=True)
    x, y = store.cls_tokens(rows), store.labels[rows].numpy()
    scaler = StandardScaler().fit(x)
    z, strength = scaler.transform(x), strengths[len(strengths) // 2]
    n_held_out = max(round(0.1 * len(y)), len(store.class_names))
    if np.bincount(y).min() >= 2 and len(y) - n_held_out >= len(store.class_names):
        train, held_out = next(StratifiedShuffleSplit(1, test_size=n_held_out, random_state=seed).split(z, y))
        scores = [LogisticRegression(C=c, max_iter=1000).fit(z[train], y[train]).score(z[held_out], y[held_out]) for c in strengths]
        strength = strengths[int(np.argmax(scores))]
    fitted = LogisticRegression(C=strength, max_iter=1000).fit(z, y)
    coef, intercept = fitted.coef_, fitted.intercept_
    if len(coef) == 1:
        coef, intercept = np.concatenate([-coef, coef]) / 2, np.concatenate([-intercept, intercept]) / 2
    weight = coef / scaler.scale_
    bias = intercept - weight @ scaler.mean_
    return LinearProbe(torch.tensor(weight, dtype=torch.float32), torch.tensor(bias, dtype=torch.float32)).to(store.device)


def train_dense(
    store: FeatureStore, config: RunConfig, *, on_epoch: Callable[[Epoch], None] | None = None
) -> tuple[DenseModel, list[Epoch]]:
    """Train the dense model (method step 2): cross-entropy and feature diversity over all F features."""
    seed_everything(config.seed)
    model = DenseModel(store.width, len(store.class_names), config.adapter, config.dense.dropout).to(store.device)
    return model, fit(model, store, config.dense, seed=config.seed, on_epoch=on_epoch)


def fine_tune(
    dense: DenseModel,
    selection: Selection | SparseSelection,
    store: FeatureStore,
    config: RunConfig,
    *,
    on_epoch: Callable[[Epoch], None] | None = None,
) -> tuple[DinoQPM, list[Epoch]]:
    """Fine-tune the adapter for the selected features under the fixed class layer (method step 4).

    The class layer normalises with mean and standard deviation of the dense training features (the latter at least 1e-6), frozen for
    QPM. Q-SENN trains in four rounds and chooses its class weights anew before each but the first, on the features as they are then.
    """
    rows, tuning = store.rows(train=True), config.fine_tune
    vectors = torch.as_tensor(feature_vectors(dense, store, rows))[:, selection.features]
    mean, std = vectors.mean(0), vectors.std(0, correction=0)
    model = DinoQPM.from_dense(dense, selection, mean=mean, std=std, class_names=store.class_names, dropout=tuning.dropout)
    model = model.to(store.device)
    if not (isinstance(selection, SparseSelection) and selection.method == "qsenn"):
        return model, fit(model, store, tuning, seed=config.seed, on_epoch=on_epoch)
    history: list[Epoch] = []
    for number, (epochs, lr) in enumerate(_rounds(config)):
        if number:
            vectors = torch.as_tensor(feature_vectors(model, store, rows)).to(store.device)
            layer = qsenn_layer(
                standardised(vectors), store.labels[rows].to(store.device), len(store.class_names), config.selection.n_per_class
            )
            model.head.weight.copy_(layer.weight)
            model.head.bias.copy_(layer.bias)
            model.head.mean.data.copy_(vectors.mean(0))
            model.head.std.data.copy_(vectors.std(0, correction=0).clamp_min(1e-5))
        before = len(history)
        done = fit(model, store, replace(tuning, epochs=epochs, lr=lr), seed=config.seed + number, on_epoch=on_epoch)
        history += [epoch._replace(epoch=before + epoch.epoch) for epoch in done]
    return model, history


def _rounds(config: RunConfig) -> list[tuple[int, float]]:
    """Epochs and learning rate of the four rounds of Q-SENN: 10, 10, 10, 40 of 70 epochs as its paper means it, or equal ones."""
    epochs, lr = config.fine_tune.epochs, config.fine_tune.lr
    if config.selection.rounds == "released":
        return [(max(1, epochs // 4), lr)] * 4
    short = max(1, round(epochs / 7))
    return [(short, lr), (short, lr * 0.9), (short, lr * 0.81), (max(1, epochs - 3 * short), lr * 0.729)]
