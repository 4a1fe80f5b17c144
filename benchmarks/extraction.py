"""Extraction from picture files against the bare forward pass of timm, and the memory of extraction and of training
from a store.

    python benchmarks/extraction.py [--backbone dinov2_vits14] [--images 256] [--workers 2]
    python benchmarks/extraction.py --memory          peak memory of training from a store of 2 GB

The backbone has random weights, which take the same time as trained ones. Pictures are JPEG files of 500 x 375 pixels,
as those of CUB-200-2011. Both passes use the same batches, device and threads; the forward pass starts from tensors
that are ready in memory.
"""

import argparse
import json
import logging
import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageFilter

from qpm_lib.backbones import BACKBONES, FrozenBackbone, build_toy_vit, load_backbone
from qpm_lib.data import ImageDataset
from qpm_lib.features import FeatureStore, Manifest, save_shard, shard_name

log = logging.getLogger("benchmark")


def peak() -> float:
    """Peak memory of this process in GB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**30 if sys.platform == "darwin" else 2**20)


def random_backbone(name: str, folder: Path) -> FrozenBackbone:
    """A backbone with random weights."""
    if name == "toy":
        network = build_toy_vit()
    else:
        from qpm_lib.backbones import import_torchvision

        import_torchvision()
        import timm

        size = {} if name == "resnet50" else {"img_size": BACKBONES[name].trained_size or BACKBONES[name].image_size}
        network = timm.create_model(BACKBONES[name].architecture, pretrained=False, num_classes=0, **size)
    torch.save(network.state_dict(), folder / "weights.pth")
    return load_backbone(name, weights=folder / "weights.pth", device="auto")


def pictures(folder: Path, count: int) -> ImageDataset:
    """JPEG files with structure at several scales."""
    rng = np.random.default_rng(0)
    for i in range(count):
        layers = [
            Image.fromarray(rng.integers(0, 255, (375 // s, 500 // s, 3), dtype=np.uint8)).resize((500, 375))
            for s in (3, 25)
        ]
        Image.blend(*layers, 0.7).filter(ImageFilter.GaussianBlur(1)).save(folder / f"{i}.jpg", quality=92)
    files = tuple(f"{i}.jpg" for i in range(count))
    return ImageDataset(folder, files, np.arange(count) % 2, np.arange(count) % 4 < 2, ("a", "b"))


def speed(options: argparse.Namespace) -> dict[str, Any]:
    """Pictures per second of both passes, in turns so that a busy moment hits both."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        backbone, dataset = random_backbone(options.backbone, folder), pictures(folder, options.images)
        batch = backbone.preprocess([dataset.image(i) for i in range(options.batch)])
        device = next(backbone.network.parameters()).device
        batch = batch.to(device)

        def forward() -> float:
            began = time.perf_counter()
            with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
                for _ in range(options.images // options.batch):
                    out = backbone.network.forward_features(batch)
            float(out.float().sum())
            return time.perf_counter() - began

        def extract(turn: int) -> float:
            began = time.perf_counter()
            FeatureStore.extract(
                dataset, backbone, folder / f"store{turn}", batch_size=options.batch, workers=options.workers
            )
            return time.perf_counter() - began

        forward()
        bare, whole = zip(*((forward(), extract(turn)) for turn in range(options.turns)), strict=True)
        return {
            "forward": options.images / np.median(bare),
            "extraction": options.images / np.median(whole),
            "ratio": float(np.median(np.array(bare) / np.array(whole))),
            "peak": peak(),
            "weights": sum(p.numel() for p in backbone.parameters()) * 4 / 2**30,
        }


def memory(options: argparse.Namespace) -> dict[str, Any]:
    """Peak memory of one epoch of training from a store of about 2 GB. Mapped file pages count as long as the system
    keeps them.
    """
    import qpm_lib
    from qpm_lib.core import load_profile

    with tempfile.TemporaryDirectory() as temporary:
        folder, n, p, d, shard = Path(temporary), options.store_images, 256, 384, 512
        generator = torch.Generator().manual_seed(0)
        for k, start in enumerate(range(0, n, shard)):
            rows = min(shard, n - start)
            tokens = torch.randn(rows, p, d, generator=generator).half()
            save_shard({"patches": tokens, "cls": tokens.mean(1)}, folder / shard_name(k))
        dataset = ImageDataset(
            folder,
            tuple(f"{i}.jpg" for i in range(n)),
            np.arange(n) // 4 % 20,
            np.arange(n) % 4 < 3,
            tuple("abcdefghijklmnopqrst"),
        )
        store = FeatureStore(folder, Manifest({}, "", n, p, d, shard), dataset)
        before = peak()
        changes = {
            "dense.epochs": 1,
            "adapter.n_layers": 2,
            "adapter.hidden": 512,
            "adapter.n_features": 256,
            "dense.batch_size": 32,
        }
        began = time.perf_counter()
        qpm_lib.train_dense(store, load_profile("cub", **changes))
        anonymous = None
        status = Path("/proc/self/status")
        if status.exists():
            fields = dict(line.split(":", 1) for line in status.read_text().splitlines() if ":" in line)
            anonymous = int(fields["RssAnon"].split()[0]) / 2**20
        return {
            "store": store.nbytes / 2**30,
            "before": before,
            "peak": peak(),
            "without mapped files": anonymous,
            "seconds": time.perf_counter() - began,
        }


def main() -> None:
    """Measure and print."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="dinov2_vits14", choices=list(BACKBONES))
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--memory", action="store_true")
    parser.add_argument("--store-images", type=int, default=10_900)
    options = parser.parse_args()
    found = (memory if options.memory else speed)(options)
    if options.memory:
        log.info("%s", json.dumps({key: value and round(value, 2) for key, value in found.items()}))
        return
    log.info("| backbone | forward pass | extraction, %d workers | ratio | peak memory (weights) |", options.workers)
    log.info("|---|---|---|---|---|")
    log.info(
        f"| {options.backbone} | {found['forward']:.1f} pictures/s | {found['extraction']:.1f} pictures/s | "
        f"{100 * found['ratio']:.0f} % "
        f"| {found['peak']:.2f} GB ({found['weights']:.2f} GB) |"
    )


if __name__ == "__main__":
    main()
