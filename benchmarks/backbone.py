"""Is the embedded backbone worth freezing? Linear probes on it, on the same architecture with random weights,
and on colour.

    python benchmarks/backbone.py

Prints a table: accuracy of logistic regression on the CLS token (species of the toy birds), mean intersection over
union of a linear part segmentation of the patches (ten parts, background included), and the colour-histogram baseline.
Takes about five minutes.
"""

import logging
import tempfile
from pathlib import Path

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from qpm_lib import load_backbone, load_dataset, load_profile, load_scenes, train_linear_probe
from qpm_lib.backbones import build_toy_vit, patch_parts, save_weights
from qpm_lib.data import PARTS
from qpm_lib.features import FeatureStore
from qpm_lib.model import accuracy

log = logging.getLogger("benchmark")
N_SEGMENTED = 200


def part_segmentation(store: FeatureStore, dataset, scenes) -> float:
    """Mean IoU over parts of a linear classifier of patch tokens, fitted on some training pictures and tested on some
    test pictures.
    """
    tokens, parts = {}, {}
    for name, rows in (("train", dataset.train_rows), ("test", dataset.test_rows)):
        some = rows[np.linspace(0, len(rows) - 1, N_SEGMENTED).astype(int)]
        tokens[name] = store.fetch(torch.as_tensor(some)).patches.flatten(0, 1).numpy()
        parts[name] = np.concatenate([patch_parts(scenes.render(dataset, int(i)).parts) for i in some])
    scaler = StandardScaler().fit(tokens["train"])
    model = LogisticRegression(C=0.1, max_iter=200).fit(scaler.transform(tokens["train"]), parts["train"])
    predicted, truth = model.predict(scaler.transform(tokens["test"])), parts["test"]
    overlaps = [
        ((predicted == k) & (truth == k)).sum() / ((predicted == k) | (truth == k)).sum() for k in range(len(PARTS))
    ]
    return float(np.mean(overlaps))


def histogram_accuracy(dataset) -> float:
    """Logistic regression on colour histograms of 4 x 4 x 4 cells."""
    counts = [
        np.histogramdd(np.asarray(dataset.image(i)).reshape(-1, 3), bins=4, range=[(0, 256)] * 3)[0].ravel()
        for i in range(len(dataset))
    ]
    x = StandardScaler().fit_transform(np.sqrt(np.stack(counts) / 128**2))
    model = LogisticRegression(C=0.01, max_iter=500).fit(x[dataset.is_train], dataset.labels[dataset.is_train])
    return float(model.score(x[~dataset.is_train], dataset.labels[~dataset.is_train]))


def main() -> None:
    """Measure and print."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    dataset = load_dataset(load_profile("toy").data)
    scenes = load_scenes(dataset.root)
    with tempfile.TemporaryDirectory() as folder:
        torch.manual_seed(0)
        save_weights(build_toy_vit(), Path(folder) / "random.safetensors")
        rows = []
        for name, weights in (("embedded weights", None), ("random weights", Path(folder) / "random.safetensors")):
            backbone = load_backbone("toy", weights=weights)
            store = FeatureStore.extract(dataset, backbone, None if weights is None else Path(folder) / "store")
            rows.append((name, accuracy(train_linear_probe(store), store), part_segmentation(store, dataset, scenes)))
    log.info("| features | CLS linear probe | part segmentation, mIoU |\n|---|---|---|")
    for name, probe, overlap in rows:
        log.info("| %s | %.1f %% | %.1f |", name, 100 * probe, 100 * overlap)
    log.info("| colour histogram | %.1f %% | |", 100 * histogram_accuracy(dataset))


if __name__ == "__main__":
    main()
