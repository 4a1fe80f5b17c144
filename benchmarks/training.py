"""A training step of the loop, over the time of its own matrix products: how much of it is work, how much is overhead.

    python benchmarks/training.py [--device cpu] [--shapes toy cub] [--steps 20]

Tokens are random. `toy` and `cub` are the adapters and batch sizes of the two profiles' dense stage. The matrix
products are those of the adapter's layers, forward and backward, of the same sizes and in the same precision, one after
the other. The last column is what 50 epochs of 5,994 pictures would take at the speed of the dense stage.
"""

import argparse
import logging
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import numpy as np
import torch

import qpm_lib
from qpm_lib.core import RunConfig, choose_device, load_profile, mixed_precision
from qpm_lib.features import TensorStore

log = logging.getLogger("benchmark")
SHAPES = {"toy": (192, 24), "cub": (768, 200)}
PATCHES, PICTURES, PUBLISHED = 256, 5994, 50


def synchronise(device: torch.device) -> None:
    """Wait for everything that was launched."""
    if device.type == "cuda":
        torch.cuda.synchronize()


def seconds(call: Callable[[], object], device: torch.device, repeats: int) -> float:
    """Median time of a call, after two that do not count."""
    found = []
    for _ in range(repeats + 2):
        synchronise(device)
        began = time.perf_counter()
        call()
        synchronise(device)
        found.append(time.perf_counter() - began)
    return float(np.median(found[2:]))


def matrix_products(config: RunConfig, width: int, device: torch.device) -> Callable[[], None]:
    """The products of one step alone: forward, gradient of the weight, and gradient of the input but for the first."""
    with mixed_precision(device):
        dtype = (torch.ones(2, 2, device=device) @ torch.ones(2, 2, device=device)).dtype
    widths = [width] + [config.adapter.hidden] * (config.adapter.n_layers - 1) + [config.adapter.n_features]
    tokens = [torch.randn(config.dense.batch_size * PATCHES, w, device=device, dtype=dtype) for w in widths]
    weights = [torch.randn(b, a, device=device, dtype=dtype) for a, b in pairwise(widths)]

    def run() -> None:
        for layer, weight in enumerate(weights):
            x, y = tokens[layer], tokens[layer + 1]
            x @ weight.T
            y.T @ x
            if layer:
                y @ weight

    return run


def measure(shape: str, device: torch.device, steps: int) -> str:
    """A row of the table."""
    width, classes = SHAPES[shape]
    config = load_profile(shape)
    n = steps * config.dense.batch_size
    generator = torch.Generator(device).manual_seed(0)
    patches = torch.randn(n, PATCHES, width, generator=generator, device=device)
    labels = torch.arange(n, device=device) % classes
    names = tuple(f"class {c}" for c in range(classes))
    store = TensorStore(patches, patches[:, 0].contiguous(), labels, class_names=names, device=device)
    ends: list[float] = []

    def tell(_: object) -> None:
        synchronise(device)
        ends.append(time.perf_counter())

    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    qpm_lib.train_dense(store, replace(config, dense=replace(config.dense, epochs=6)), on_epoch=tell)
    step = float(np.median(np.diff(ends[1:]))) / steps
    peak = torch.cuda.max_memory_allocated() / 2**30 if device.type == "cuda" else _resident()
    products = seconds(matrix_products(config, width, device), device, 10)
    rate = config.dense.batch_size / step
    cells = [shape, f"{1000 * step:.2f}", f"{1000 * products:.2f}", f"{step / products:.2f}", f"{rate:.0f}",
             f"{peak:.2f}", f"{PUBLISHED * PICTURES / rate:.0f}"]  # fmt: skip
    return "| " + " | ".join(cells) + " |"


def _resident() -> float:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**30 if sys.platform == "darwin" else 2**20)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--shapes", nargs="+", choices=list(SHAPES), default=list(SHAPES))
    parser.add_argument("--steps", type=int, default=20, help="steps in an epoch")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stdout)
    log.setLevel(logging.INFO)
    device = choose_device(arguments.device)
    name = torch.cuda.get_device_name() if device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    log.info("%s, torch %s\n", name, torch.__version__)
    head = [
        "shape",
        "step (ms)",
        "its products (ms)",
        "ratio",
        "pictures / s",
        "peak (GB)",
        "25 + 25 epochs of CUB (s)",
    ]
    log.info("| %s |\n%s|", " | ".join(head), "|---" * len(head))
    for shape in arguments.shapes:
        log.info("%s", measure(shape, device, arguments.steps))


if __name__ == "__main__":
    main()
