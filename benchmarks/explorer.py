"""From the change of a control to the finished JPEG, in Python alone, and memory over 1,000 changes.

    python benchmarks/explorer.py RUN [--changes 1000]

RUN is a finished run folder, for example runs/toy. The way to the browser (in JupyterLab about 30 to 40 ms) comes on top.
"""

import argparse
import logging
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

import qpm_lib
from qpm_lib.artifacts import read_json
from qpm_lib.explorer import explore

log = logging.getLogger("benchmark")


def peak() -> float:
    """Peak memory of this process in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def main() -> None:
    """Measure and print."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--changes", type=int, default=1000)
    options = parser.parse_args()
    run = qpm_lib.open_run(options.run, read_json(options.run / "config.json")["profile"])
    dataset, backbone = run.dataset(), run.backbone()
    explorer = explore(run.load_model().with_backbone(backbone), dataset, store=run.features(dataset, backbone))
    n_classes, grid = len(dataset.class_names), explorer.store.grid
    changes: dict[str, Callable[[int], object]] = {
        "slider": lambda i: setattr(explorer.threshold, "value", 0.005 * (i % 100 + 1)),
        "feature on or off": lambda i: setattr(explorer.switches[0], "value", bool(i % 2)),
        "another class explained": lambda i: setattr(explorer.explained, "value", i % n_classes),
        "patch": lambda i: setattr(explorer.column, "value", i % grid),
        "feature shown": lambda i: setattr(explorer.feature, "value", i % len(explorer.names)),
        "new picture": lambda i: explorer.surprise.click(),
    }
    log.info("| change | median | 95 % below |")
    log.info("|---|---|---|")
    for name, change in changes.items():
        seconds = []
        for i in range(60):
            began = time.perf_counter()
            change(i)
            seconds.append(time.perf_counter() - began)
        log.info("| %s | %.1f ms | %.1f ms |", name, 1e3 * np.median(seconds), 1e3 * np.percentile(seconds, 95))
    before = peak()
    for i in range(options.changes):
        list(changes.values())[i % len(changes)](i)
    log.info("memory: %.0f MB, after %d more changes %.0f MB", before, options.changes, peak())


if __name__ == "__main__":
    main()
