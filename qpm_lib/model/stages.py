"""What is trained: the dense model and the model of few features with the loop, the linear probe by scikit-learn."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from qpm_lib.core import RunConfig, seed_everything
from qpm_lib.features import FeatureStore
from qpm_lib.model.dense import DenseModel, LinearProbe
from qpm_lib.model.outputs import feature_vectors
from qpm_lib.model.qpm import DinoQPM
from qpm_lib.model.training import Epoch, fit
from qpm_lib.selection import Selection, SparseSelection, qsenn_layer, standardised


def train_linear_probe(
    store: FeatureStore, *, seed: int = 0, strengths: tuple[float, ...] = (0.01, 0.1, 1.0)
) -> LinearProbe:
    """Logistic regression on z-scored CLS tokens (scikit-learn), its strength chosen on a tenth of the training
    pictures.

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
        scores = [
            LogisticRegression(C=c, max_iter=1000).fit(z[train], y[train]).score(z[held_out], y[held_out])
            for c in strengths
        ]
        strength = strengths[int(np.argmax(scores))]
    fitted = LogisticRegression(C=strength, max_iter=1000).fit(z, y)
    coef, intercept = fitted.coef_, fitted.intercept_
    if len(coef) == 1:
        coef, intercept = np.concatenate([-coef, coef]) / 2, np.concatenate([-intercept, intercept]) / 2
    weight = coef / scaler.scale_
    bias = intercept - weight @ scaler.mean_
    return LinearProbe(torch.tensor(weight, dtype=torch.float32), torch.tensor(bias, dtype=torch.float32)).to(
        store.device
    )


def train_dense(
    store: FeatureStore,
    config: RunConfig,
    *,
    on_epoch: Callable[[Epoch], None] | None = None,
    checkpoint: Path | None = None,
) -> tuple[DenseModel, list[Epoch]]:
    """Train the dense model (method step 2): cross-entropy and feature diversity over all F features.

    A stopped call goes on from the file `checkpoint`, which stays until the caller has kept the model.
    """
    seed_everything(config.seed)
    model = DenseModel(store.width, len(store.class_names), config.adapter, config.dense.dropout).to(store.device)
    return model, fit(model, store, config.dense, seed=config.seed, on_epoch=on_epoch, checkpoint=checkpoint)


def fine_tune(
    dense: DenseModel,
    selection: Selection | SparseSelection,
    store: FeatureStore,
    config: RunConfig,
    *,
    on_epoch: Callable[[Epoch], None] | None = None,
    checkpoint: Path | None = None,
) -> tuple[DinoQPM, list[Epoch]]:
    """Fine-tune the adapter for the selected features under the fixed class layer (method step 4).

    The class layer normalises with mean and standard deviation of the dense training features (the latter at least
    1e-6), frozen for QPM. Q-SENN trains in four rounds and chooses its class weights anew before each but the first,
    on the features as they are then. A stopped call goes on from the file `checkpoint` (of Q-SENN one for each round,
    with its number in the name), which stays until the caller has kept the model.
    """
    rows, tuning = store.rows(train=True), config.fine_tune
    vectors = torch.as_tensor(feature_vectors(dense, store, rows))[:, selection.features]
    mean, std = vectors.mean(0), vectors.std(0, correction=0)
    model = DinoQPM.from_dense(
        dense, selection, mean=mean, std=std, class_names=store.class_names, dropout=tuning.dropout
    )
    model = model.to(store.device)
    if not (isinstance(selection, SparseSelection) and selection.method == "qsenn"):
        return model, fit(model, store, tuning, seed=config.seed, on_epoch=on_epoch, checkpoint=checkpoint)
    history: list[Epoch] = []
    for number, (epochs, lr) in enumerate(qsenn_rounds(config)):
        if number:
            vectors = torch.as_tensor(feature_vectors(model, store, rows)).to(store.device)
            layer = qsenn_layer(
                standardised(vectors),
                store.labels[rows].to(store.device),
                len(store.class_names),
                config.selection.n_per_class,
            )
            model.head.weight.copy_(layer.weight)
            model.head.bias.copy_(layer.bias)
            model.head.mean.data.copy_(vectors.mean(0))
            model.head.std.data.copy_(vectors.std(0, correction=0).clamp_min(1e-5))
        before = len(history)
        place = checkpoint and checkpoint.with_stem(f"{checkpoint.stem}-{number}")
        options = {"seed": config.seed + number, "on_epoch": on_epoch, "checkpoint": place}
        done = fit(model, store, replace(tuning, epochs=epochs, lr=lr), **options)
        history += [epoch._replace(epoch=before + epoch.epoch) for epoch in done]
    return model, history


def qsenn_rounds(config: RunConfig) -> list[tuple[int, float]]:
    """Epochs and learning rate of the four rounds of Q-SENN: 10, 10, 10, 40 of 70 epochs as its paper means it,
    or equal ones.
    """
    epochs, lr = config.fine_tune.epochs, config.fine_tune.lr
    if config.selection.rounds == "released":
        return [(max(1, epochs // 4), lr)] * 4
    short = max(1, round(epochs / 7))
    return [(short, lr), (short, lr * 0.9), (short, lr * 0.81), (max(1, epochs - 3 * short), lr * 0.729)]
