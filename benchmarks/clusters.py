"""Clusters of an encoder's activations (NAVE) on rendered birds, whose parts are known.

    python benchmarks/clusters.py parts [--pictures 240] [--seeds 3]
    python benchmarks/clusters.py watermark [--seeds 5]
    python benchmarks/clusters.py speed

`parts`: is the object the bird, and are clusters within it its parts? Fitted on training pictures, measured on test
pictures, for the trained encoder, the same encoder with random weights, and the mean colours of patches; beside them
clusters drawn by lot and the object of another picture. `watermark`: one class of eight has a colour chart in its
pictures; is the cluster that is most of one class's own the chart? The same pictures without it beside it. `speed`:
100 pictures of 256 patches, once their tokens are there.
"""

import argparse
import logging
import sys
import time

import numpy as np
import torch
from PIL import Image

import qpm_lib
from qpm_lib import metrics
from qpm_lib.backbones import FrozenBackbone, patch_parts, random_backbone
from qpm_lib.core import load_profile
from qpm_lib.data import ImageDataset, Scenes, watermark
from qpm_lib.explain import NAVE, Described, SharedClusters, sharpen

log = logging.getLogger("benchmark")
KS = (6, 9, 12, 14, 16, 18, 20)
EARLY, EARLY_K = (1 / 6,), 150


def mean_colours(backbone: FrozenBackbone, images: list[Image.Image]) -> Described:
    """Descriptors that any program could make: the mean colour of each patch."""
    small = [np.asarray(backbone.square(i).resize((backbone.grid,) * 2, Image.Resampling.BOX)) for i in images]
    tokens = torch.from_numpy(np.stack(small).reshape(len(images), -1, 3).astype(np.float32) / 255)
    return Described(tokens, torch.zeros(tokens.shape[:2], dtype=torch.bool))


def object_pixels(clusters: SharedClusters, found: Described, images: list[Image.Image]) -> np.ndarray:
    """The object in pixels, (B, h, w)."""
    return np.stack([sharpen(one, image) == 1 for one, image in zip(clusters.sides(found), images, strict=True)])


def measure_parts(dataset: ImageDataset, scenes: Scenes, pictures: int, seeds: int) -> None:
    """Print the table of objects and parts."""
    backbone = qpm_lib.load_backbone("toy")
    fit_rows = dataset.train_rows[np.linspace(0, len(dataset.train_rows) - 1, pictures).astype(int)]
    rows = dataset.test_rows[np.linspace(0, len(dataset.test_rows) - 1, pictures).astype(int)]
    fit_on, images = ([dataset.image(int(row)) for row in some] for some in (fit_rows, rows))
    masks = np.stack([scenes.render(dataset, int(row)).parts for row in rows])
    truth, bird = np.stack([patch_parts(m).reshape(backbone.grid, -1) for m in masks]), masks > 0
    described = {
        "trained, 4 depths": NAVE(backbone),
        "trained, 2 late depths": NAVE(backbone, taps=(3 / 4, 1)),
        "random weights": NAVE(random_backbone("toy")),
        "colours": None,
    }
    head = "bird, pixels", "bird, patches", "found", "part IoU", "k", "ARI", "NMI", "purity", "stability"
    log.info(
        "%d pictures to fit, %d to measure, %d seeds\n\n| tokens | %s |", pictures, pictures, seeds, " | ".join(head)
    )
    log.info("|---" * (len(head) + 1) + "|")
    for name, nave in described.items():
        made = [nave.describe(some) if nave else mean_colours(backbone, some) for some in (fit_on, images)]
        one_table(name, nave or NAVE(backbone), made, images, truth, bird, seeds)
    rng = np.random.default_rng(0)
    lot = metrics.part_agreement(rng.integers(0, 16, truth.shape), truth)
    other = metrics.region_iou(np.roll(bird, 7, 0), bird)
    whole = metrics.region_iou(np.kron(truth > 0, np.ones((8, 8), bool)), bird)
    cells = f"{lot.matched_iou:.2f} | 16 | {lot.ari:.2f} | {lot.nmi:.2f} | {lot.purity:.2f} | 0.00"
    log.info("| drawn by lot; the bird of another picture | %.2f | | | %s |", other.mean(), cells)
    log.info(
        "| the best that whole patches can be | %.2f | 1.00 | 1.00 | 1.00 | 10 | 1.00 | 1.00 | 1.00 | |", whole.mean()
    )


def one_table(
    name: str,
    nave: NAVE,
    made: list[Described],
    images: list[Image.Image],
    truth: np.ndarray,
    bird: np.ndarray,
    seeds: int,
) -> None:
    """Print one row: means over pictures and seeds, the best number of clusters, and the range over seeds."""
    in_pixels, on_patches, found, by_k, runs = [], [], [], {k: [] for k in KS}, {k: [] for k in KS}
    for seed in range(seeds):
        nave.seed = seed
        shared = nave.fit(made[0])
        objects = shared.objects(made[1]).numpy()
        pixels = object_pixels(shared, made[1], images)
        in_pixels.append(metrics.region_iou(pixels, bird))
        on_patches.append(metrics.region_iou(objects, truth > 0).mean())
        found.append(metrics.localised(pixels, bird).mean())
        for k in KS:
            parts = nave.fit(made[0], finest=k, within=shared.objects(made[0]))
            labels = np.where(objects, 1 + parts.transform(made[1], k).numpy(), 0)
            by_k[k].append(metrics.part_agreement(labels, truth))
            runs[k].append(labels)
    best = max(KS, key=lambda k: np.mean([a.matched_iou for a in by_k[k]]))
    low, high = metrics.bootstrap_interval(np.mean(in_pixels, 0), seed=0)
    ious = [a.matched_iou for a in by_k[best]]
    cells = [f"{np.mean(in_pixels):.2f} [{low:.2f}, {high:.2f}]", f"{np.mean(on_patches):.2f}", f"{np.mean(found):.2f}"]
    cells += [f"{np.mean(ious):.2f} ({min(ious):.2f} to {max(ious):.2f})", f"{best}"]
    cells += [f"{np.mean([getattr(a, what) for a in by_k[best]]):.2f}" for what in ("ari", "nmi", "purity")]
    log.info(
        "| %s | %s | %.2f |", name, " | ".join(cells), metrics.stability(runs[best]) if seeds > 1 else float("nan")
    )


def measure_watermark(dataset: ImageDataset, seeds: int, *, n_classes: int = 8, per_class: int = 20) -> None:
    """Print for each seed which class the watermark was laid into, and what its clusters say."""
    backbone = qpm_lib.load_backbone("toy")
    log.info("| seed | class | lead with, of this class | next class | on the chart | lead without, of any class |")
    log.info("|---" * 6 + "|")
    for seed in range(seeds):
        rng = np.random.default_rng(seed)
        marked = int(rng.integers(n_classes))
        pools = [np.flatnonzero((dataset.labels == c) & dataset.is_train) for c in range(n_classes)]
        rows = np.concatenate([rng.choice(pool, per_class, False) for pool in pools])
        classes = dataset.labels[rows]
        images = [np.asarray(dataset.image(int(row))) for row in rows]
        both = [watermark(image, 1000 * seed + i) for i, image in enumerate(images)]
        charts = np.stack([mask for _, mask in both]) & (classes == marked)[:, None, None]
        with_it = [both[i][0] if classes[i] == marked else image for i, image in enumerate(images)]
        leads = []
        for pictures in (with_it, images):
            pils = [Image.fromarray(image) for image in pictures]
            early = NAVE(backbone, taps=EARLY, seed=seed)
            unusual = early.describe(pils).unusual()
            labels = early.fit(unusual, finest=EARLY_K).transform(unusual, EARLY_K).numpy()
            leads.append((metrics.exclusive_clusters(labels, classes), labels))
        found, labels = leads[0]
        mine = labels == found.cluster[marked]
        covered = charts.reshape(len(charts), backbone.grid, 8, backbone.grid, 8).any((2, 4))
        cells = found.lead[marked], np.delete(found.lead, marked).max(), (mine & covered).sum() / mine.sum()
        log.info("| %d | %d | %.2f | %.2f | %.2f | %.2f |", seed, marked, *cells, leads[1][0].lead.max())


def measure_speed(dataset: ImageDataset) -> None:
    """Print seconds for 100 pictures."""
    nave = NAVE(qpm_lib.load_backbone("toy"))
    began = time.perf_counter()
    found = nave.describe([dataset.image(int(row)) for row in dataset.test_rows[:100]])
    times = [time.perf_counter() - began]
    for act in (lambda: nave(found), lambda: nave.fit(found)):
        began = time.perf_counter()
        act()
        times.append(time.perf_counter() - began)
    log.info("100 pictures: %.1f s for tokens; then %.1f s each on its own, %.1f s all together", *times)


def main() -> None:
    """Print one table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("parts", "watermark", "speed"))
    parser.add_argument("--pictures", type=int, default=240)
    parser.add_argument("--seeds", type=int, help="default: 3, for watermark 5")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    dataset = qpm_lib.load_dataset(load_profile("toy").data)
    if arguments.what == "parts":
        measure_parts(dataset, qpm_lib.load_scenes(dataset.root), arguments.pictures, arguments.seeds or 3)
    elif arguments.what == "watermark":
        measure_watermark(dataset, arguments.seeds or 5)
    else:
        measure_speed(dataset)


if __name__ == "__main__":
    main()
