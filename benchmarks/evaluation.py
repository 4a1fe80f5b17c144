"""All measures of one model on many pictures: time and memory, beside the time of producing the maps alone.

    python benchmarks/evaluation.py [--images 10000] [--features 50] [--grid 16]

Half of the pictures are training, half test. Maps are random and made batch by batch, as a model would.
"""

import argparse
import logging
import resource
import sys
import time
from types import SimpleNamespace

import numpy as np
import torch

from qpm_lib import metrics
from qpm_lib.features import FeatureBatch
from qpm_lib.model import Output

log = logging.getLogger("benchmark")


class _Store:
    """Labels and empty batches; the model makes its maps itself."""

    def __init__(self, n_images: int, n_classes: int, grid: int) -> None:
        self.labels, self.grid, self.device = torch.arange(n_images) % n_classes, grid, torch.device("cpu")
        self.is_train, self.backbone_fingerprint = torch.arange(n_images) % 2 == 0, {}

    def rows(self, train: bool) -> torch.Tensor:
        return torch.nonzero(self.is_train == train).flatten()

    def batches(self, rows: torch.Tensor, batch_size: int) -> object:
        for chosen in rows.split(batch_size):
            yield FeatureBatch(torch.zeros(len(chosen), 1, 1), torch.zeros(len(chosen), 1), self.labels[chosen])


class _Model:
    """Random maps, and class weights with five features per class."""

    def __init__(self, n_classes: int, n_features: int, grid: int) -> None:
        self.generator, self.shape = torch.Generator().manual_seed(0), (n_features, grid, grid)
        self.class_weight = torch.zeros(n_classes, n_features)
        for row in self.class_weight:
            row[torch.randperm(n_features, generator=self.generator)[:5]] = 1.0

    def __call__(self, patches: torch.Tensor, cls: torch.Tensor) -> Output:
        maps = torch.rand(len(patches), *self.shape, generator=self.generator)
        vector = maps.mean((2, 3))
        return Output(maps, vector, vector @ self.class_weight.T)


def main() -> None:
    """Measure and print."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--features", type=int, default=50)
    parser.add_argument("--grid", type=int, default=16)
    options = parser.parse_args()
    store, model = _Store(options.images, 200, options.grid), _Model(200, options.features, options.grid)
    rng = np.random.default_rng(0)
    dataset = SimpleNamespace(
        masks=True,
        mask=lambda row: np.add.outer(np.arange(224), np.arange(224)) < 100 + row % 200,
        class_attributes=rng.random((200, 312)),
        image_attributes=rng.random((options.images, 312)) < 0.2,
        class_names=[str(c) for c in range(200)],
    )
    began = time.perf_counter()
    for train in (True, False):
        for batch in store.batches(store.rows(train), 64):
            model(batch.patches, batch.cls)
    alone = time.perf_counter() - began
    began = time.perf_counter()
    metrics.evaluate(model, store, dataset)
    seconds = time.perf_counter() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**30 if sys.platform == "darwin" else 2**20)
    log.info("| pictures | features | maps | evaluation | maps alone | ratio | peak memory |")
    log.info("|---|---|---|---|---|---|---|")
    size = f"{options.grid} x {options.grid}"
    log.info(
        f"| {options.images} | {options.features} | {size} | {seconds:.1f} s | {alone:.1f} s | {seconds / alone:.1f} | "
        f"{peak:.2f} GB |"
    )


if __name__ == "__main__":
    main()
