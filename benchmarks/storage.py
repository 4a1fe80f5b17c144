"""What smaller features cost: accuracy and plausibility of a QPM trained on tokens in other formats.

    python benchmarks/storage.py RUN [--seeds 0]

RUN is a run whose features are extracted. `int8` keeps a scale for each token, `float8` is the format of three bits of
mantissa, `PCA` projects tokens to a third of their dimensions (256 of 768), fitted on training pictures. The rest is
the chain with the settings of the run: dense model, programme, fine-tuning, evaluation.
"""

import argparse
import logging
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

import qpm_lib
from qpm_lib import metrics, selection
from qpm_lib.features import FeatureStore, TensorStore
from qpm_lib.model import feature_vectors, map_locality

log = logging.getLogger("benchmark")


def as_int8(tokens: Tensor, _: Tensor) -> Tensor:
    """Rounded to 255 steps of the largest value of the token."""
    scale = tokens.abs().amax(-1, keepdim=True).clamp_min(1e-12) / 127
    return (tokens / scale).round().clamp(-127, 127) * scale


def as_float8(tokens: Tensor, _: Tensor) -> Tensor:
    """Four bits of exponent and three of mantissa, with one scale for all."""
    scale = 448 / float(tokens.abs().max())
    return (tokens * scale).to(torch.float8_e4m3fn).float() / scale


def as_pca(tokens: Tensor, is_train: Tensor) -> Tensor:
    """The first third of the principal axes of the training tokens."""
    flat = tokens[is_train].flatten(0, -2).double()
    mean = flat.mean(0)
    _, vectors = torch.linalg.eigh((flat - mean).T @ (flat - mean))
    axes = vectors[:, -tokens.shape[-1] // 3 :].float()
    return (tokens - mean.float()) @ axes


FORMATS: dict[str, tuple[float, Callable[[Tensor, Tensor], Tensor]]] = {
    "fp16 (as it is)": (2, lambda tokens, _: tokens),
    "int8": (1, as_int8),
    "float8": (1, as_float8),
    "PCA to a third, fp16": (2 / 3, as_pca),
    "PCA to a third, int8": (1 / 3, lambda tokens, is_train: as_int8(as_pca(tokens, is_train), is_train)),
}


def changed(store: FeatureStore, change: Callable[[Tensor, Tensor], Tensor]) -> TensorStore:
    """The store with other tokens."""
    every = store.fetch(torch.arange(len(store)))
    patches = change(every.patches, store.is_train)
    names = store.class_names
    return TensorStore(patches, patches.mean(1), store.labels, class_names=names, is_train=store.is_train)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stdout)
    log.setLevel(logging.INFO)
    run = qpm_lib.open_run(arguments.run)
    dataset = run.dataset()
    store = run.features(dataset, run.backbone())
    log.info("| tokens | bytes a number of now | seed | accuracy | plausibility |\n|---|---|---|---|---|")
    for name, (size, change) in FORMATS.items():
        smaller = changed(store, change)
        for seed in arguments.seeds:
            config = replace(run.config, seed=seed)
            dense, _ = qpm_lib.train_dense(smaller, config)
            rows, wanted = smaller.rows(train=True), config.selection
            vectors, labels = feature_vectors(dense, smaller, rows), smaller.labels[rows].numpy()
            relevance = selection.relevance(vectors, labels, constant="zero")
            keeps = map_locality(dense, smaller, seed=seed)
            chosen = selection.solve_as_set(relevance, wanted, keeps=keeps, seed=seed)
            model, _ = qpm_lib.fine_tune(dense, chosen, smaller, config)
            found = metrics.evaluate(model, smaller, dataset, k=wanted.n_per_class, seed=seed).values
            log.info("| %s | %.2f | %d | %.4f | %.3f |", name, size, seed, found["accuracy"], found["plausibility"])


if __name__ == "__main__":
    main()
