"""What explanation methods cost.

    python benchmarks/explanations.py [--backbones toy dinov2_vits14_reg] [--pictures 8]

Time per picture as a multiple of one forward pass of the backbone, in one run, and by how much each method raises the
peak of memory so far; backbones other than `toy` with random weights. Whether the maps say what a model does is
measured by `qpm compare`.
"""

import argparse
import gc
import logging
import resource
import sys
import time
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image

import qpm_lib
from qpm_lib.backbones import BACKBONES, random_backbone
from qpm_lib.explain import METHODS, Target, make, possible
from qpm_lib.model import LinearProbe

log = logging.getLogger("benchmark")
SLOW = ("integrated_gradients", "token_ablation", "rise")


def random_target(name: str) -> Target:
    """A linear probe on a backbone with random weights (the toy backbone with its own)."""
    backbone = qpm_lib.load_backbone("toy") if name == "toy" else random_backbone(name)
    torch.manual_seed(0)
    return Target(LinearProbe(torch.randn(24, backbone.width), torch.zeros(24)), backbone)


def measure_cost(names: Sequence[str], pictures: int) -> None:
    """Print the table of costs."""
    rng = np.random.default_rng(0)
    for name in names:
        target = random_target(name)
        size = target.backbone.image_size
        images = [Image.fromarray(rng.integers(0, 255, (size, size, 3), dtype=np.uint8)) for _ in range(pictures)]
        labels, pixels = torch.zeros(pictures, dtype=torch.long), target.pixels(images)

        def forward(target: Target = target, pixels: torch.Tensor = pixels) -> None:
            with torch.no_grad():
                target(pixels)

        blocks = len(target.backbone.blocks)
        log.info("\n%s: %d blocks, %d patches, batches of %d", name, blocks, target.grid**2, pictures)
        log.info("| method | forward passes | expected | peak memory, MB more than before |")
        log.info("|---|---|---|---|")
        for method in possible(target):
            explain = make(method, target, batch_size=32 if method in SLOW else pictures)
            few = 1 if method in SLOW else pictures

            def run(explain=explain, few: int = few, images=images, labels=labels) -> None:
                explain(images[:few], labels[:few])

            base = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            ratio = paired_ratio(run, forward, few / pictures, repeats=1 if method in SLOW else 7)
            more = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - base) / 1024
            log.info("| %s | %.2f | %s | %.0f |", method, ratio, METHODS[method].cost, more)
        gc.collect()


def paired_ratio(run, forward, share: float, *, repeats: int) -> float:
    """Median over pairs of the time of a method and that of a forward pass right before it."""
    forward()
    if repeats > 1:
        run()
    ratios = []
    for _ in range(repeats):
        start = time.perf_counter()
        for _ in range(3):
            forward()
        middle = time.perf_counter()
        run()
        ratios.append((time.perf_counter() - middle) / ((middle - start) / 3 * share))
    return float(np.median(ratios))


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbones", nargs="+", default=["toy", "dinov2_vits14_reg"], choices=list(BACKBONES))
    parser.add_argument("--pictures", type=int, default=8)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    measure_cost(arguments.backbones, arguments.pictures)


if __name__ == "__main__":
    main()
