"""Planning a sweep: time and memory for many points, before anything is executed.

python benchmarks/sweep.py [--points 10000]
"""

import argparse
import logging
import resource
import sys
import time

from qpm_lib.runs import ChapterStore, this_computer
from qpm_lib.sweep import plan_sweep, read_points

log = logging.getLogger("benchmark")


def main() -> None:
    """Print points, distinct chapters, seconds and peak of memory."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--points", type=int, default=10_000)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    seeds = -(-arguments.points // 100)
    values = [f"{0.001 * (1 + i):.3f}" for i in range(10)]
    grid = {
        "seed": list(map(str, range(seeds))),
        "dense.lr": values,
        "fine_tune.lr": values,
    }
    began = time.perf_counter()
    points = read_points("smoke", grid=grid)
    read = time.perf_counter()
    plan = plan_sweep(points, ChapterStore(computer=this_computer()))
    planned = time.perf_counter()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**30 if sys.platform == "darwin" else 2**20)
    log.info("%d points read in %.1f s, planned in %.1f s: %d distinct chapters; peak of memory %.2f GB",
             len(points), read - began, planned - read, len(plan.tasks), peak)  # fmt: skip


if __name__ == "__main__":
    main()
