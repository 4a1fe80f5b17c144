"""Exact values of parts and the checks of explanations: seconds and memory, beside the time of the backbone alone;
and what the features of the finished model are worth (purity, maps on the part, locality in the picture).

    python benchmarks/ground_truth.py RUN [--pictures 200] [--fresh]

RUN is a run on rendered birds, finished up to chapter 4. Every picture is drawn 257 times and shown to the linear
probe, the dense model and the finished model at once. Answers are kept in the cache; `--fresh` makes them anew, in a
temporary folder. `--pictures 0` leaves that out and measures the features alone, in half a minute.
"""

import argparse
import logging
import resource
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image

import qpm_lib
from qpm_lib import metrics
from qpm_lib.data import PARTS, ImageDataset, Scenes
from qpm_lib.explain import Target, make

log = logging.getLogger("benchmark")
N_BIRDS, N_PLACES = 300, 32


def measure_features(
    model: qpm_lib.DinoQPM, dataset: ImageDataset, scenes: Scenes, seed: int
) -> tuple[float, float, float]:
    """What the features are worth (purity, map on the part, locality): random is 0 in each, the best possible 1."""

    def features(images: list[Image.Image]) -> tuple[torch.Tensor, torch.Tensor]:
        return model.output(images)[:2]

    rows = dataset.test_rows[np.linspace(0, len(dataset.test_rows) - 1, N_PLACES).astype(int)]
    squares = [model.backbone.square(dataset.image(int(row))) for row in rows]
    used = [np.flatnonzero(model.class_weight[c].cpu()) for c in model.predict(squares).classes]
    bare = [scenes.render(dataset, int(row), without=PARTS[1:]).image for row in rows]
    fills = [model.backbone.square(Image.fromarray(picture)) for picture in bare]
    purity = metrics.feature_purity(features, n_birds=N_BIRDS, seed=seed)
    locality = metrics.feature_locality(features, squares, used, fills, seed=seed)
    return purity.purity_skill, purity.on_part_skill, locality.skill


def main() -> None:
    """Print one table of times, and one of skills."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--pictures", type=int, default=200)
    parser.add_argument("--fresh", action="store_true", help="ignore answers that are kept")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    run = qpm_lib.open_run(arguments.run)
    dataset, backbone = run.dataset(), run.backbone()
    store, scenes = run.features(dataset, backbone), qpm_lib.load_scenes(dataset.root)
    models = {
        "linear probe": qpm_lib.train_linear_probe(store, seed=run.config.seed),
        "dense": run.load_dense(),
        "finished": run.load_model().with_backbone(backbone),
    }
    if not arguments.pictures:
        log.info("\n| purity, skill | map on the part, skill | locality, skill |")
        log.info("|---" * 3 + "|")
        log.info("| %.2f | %.2f | %.2f |", *measure_features(models["finished"], dataset, scenes, run.config.seed))
        return
    rows = dataset.test_rows
    rows = rows[np.linspace(0, len(rows) - 1, min(arguments.pictures, len(rows))).astype(int)]

    batch = torch.zeros(64, 3, backbone.image_size, backbone.image_size)
    backbone.tokens(batch)
    start = time.perf_counter()
    for _ in range(8):
        backbone.tokens(batch)
    alone = (time.perf_counter() - start) / (8 * 64) * (metrics.SUBSETS + 1)
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        place = Path(folder) if arguments.fresh else None
        exact = metrics.exact_parts(models, backbone, dataset, scenes, rows, folder=place, workers=1)
        took = time.perf_counter() - start
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "linux" else 2**30)
    log.info("%d pictures, %d models: %.0f s, %.2f s a picture", len(rows), len(models), took, took / len(rows))
    log.info("backbone alone: %.2f s a picture; all of it takes %.2f times as long", alone, took / len(rows) / alone)
    log.info("peak memory %.2f GB", memory)

    log.info("\n| model | map | %s | ms a picture |", " | ".join(metrics.CHECKS))
    log.info("|---" * (3 + len(metrics.CHECKS)) + "|")
    for name, model in models.items():
        truths = metrics.picture_truths(exact[name], dataset, scenes, store.grid)
        own, target = "intrinsic" if name == "finished" else "class_activation_map", Target(model, backbone)
        for title, method in {"own": own, "random": "random", "blob": "centre"}.items():
            explain = make(method, target)
            start = time.perf_counter()
            checks = metrics.part_checks(explain, truths)
            each = 1000 * (time.perf_counter() - start) / len(rows)
            skills = [checks.skill(check) for check in metrics.CHECKS]
            cells = ("n/a" if s is None else f"{s.value:.2f} [{s.low:.2f}, {s.high:.2f}]" for s in skills)
            log.info("| %s | %s | %s | %.0f |", name, title, " | ".join(cells), each)
    measure_features(models["finished"], dataset, scenes, run.config.seed)


if __name__ == "__main__":
    main()
