"""Importing the package, over importing torch: median time of fresh processes, in turn.

python benchmarks/startup.py [--repeats 9]
"""

import argparse
import logging
import subprocess
import sys
import time

import numpy as np

log = logging.getLogger("benchmark")


def seconds(module: str) -> float:
    """Time of a process that imports a module and ends."""
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", f"import {module}"], check=True)  # noqa: S603
    return time.perf_counter() - began


def main() -> None:
    """Print both times and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=9)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    modules = ("torch", "qpm_lib")
    for module in modules:  # files are read, and compiled, once
        seconds(module)
    found = np.array([[seconds(module) for module in modules] for _ in range(arguments.repeats)])
    torch, package = np.median(found, 0)
    log.info("import torch: %.2f s, import qpm_lib: %.2f s, ratio %.2f (median of %d)",
             torch, package, np.median(found[:, 1] / found[:, 0]), arguments.repeats)  # fmt: skip


if __name__ == "__main__":
    main()
