"""Sweeps: planning of many points, and 3 seeds x 3 methods executed in four ways.

    python benchmarks/sweep.py [--points 10000]
    python benchmarks/sweep.py --execute FOLDER [--to 06]

The second command executes profile smoke one run after the other, as a sweep with one worker (which has all cores), as
one with two workers (which share them), and as one with two workers of which one is killed in every third chapter. It
prints the time of each, what the engine adds to a chapter, and how many files of the sweeps of two workers equal to the
bit those of the nine runs, which have as many threads. Each begins with features in its cache folder and nothing else.
"""

import argparse
import json
import logging
import os
import random
import re
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path

import psutil

from qpm_lib.runs import ChapterStore, this_computer
from qpm_lib.sweep import plan_sweep, read_points, threads_each

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "faults"))
from harness import QPM, contents, differences

log = logging.getLogger("benchmark")
GRID = {"seed": ["0", "1", "2"], "selection.method": ["qpm", "sldd", "qsenn"]}
COMMON = ["--profile", "smoke", "--no-lesson"]


def plan(count: int) -> None:
    """Print points, distinct chapters, seconds and peak of memory."""
    values = [f"{0.001 * (1 + i):.3f}" for i in range(10)]
    grid = {"seed": list(map(str, range(-(-count // 100)))), "dense.lr": values, "fine_tune.lr": values}
    began = time.perf_counter()
    points = read_points("smoke", grid=grid)
    read = time.perf_counter()
    planned = plan_sweep(points, ChapterStore(computer=this_computer()))
    seconds = time.perf_counter() - read
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**30 if sys.platform == "darwin" else 2**20)
    log.info("%d points read in %.1f s, planned in %.1f s: %d distinct chapters; peak of memory %.2f GB",
             len(points), read - began, seconds, len(planned.tasks), peak)  # fmt: skip


class Execution:
    """The same nine points, in several ways."""

    def __init__(self, folder: Path, end: str) -> None:
        self.folder, self.end = folder, end
        self.points = read_points("smoke", grid=GRID)
        threads = str(threads_each(2))
        self.environment = {**os.environ, "TQDM_DISABLE": "1", "OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}
        self.start("cache", "extract", "--profile", "smoke", "--workers", "1").communicate()

    def start(self, cache: str, *command: str) -> subprocess.Popen:
        """Start a command with a cache folder."""
        environment = {**self.environment, "QPM_CACHE": str(self.folder / cache)}
        return subprocess.Popen([*QPM, *command], env=environment, stdout=subprocess.PIPE, text=True)  # noqa: S603

    def separately(self) -> None:
        """Nine runs, none of which knows of the others."""
        began, spent, chapters = time.perf_counter(), 0.0, 0
        for point in self.points:
            settings = [word for pair in point.settings.items() for word in ("--set", "=".join(pair))]
            out = self.folder / "separate" / point.name
            run = self.start("cache", "run", *COMMON, "--fresh", "--to", self.end, "--out", str(out), *settings)
            run.communicate()
            results = json.loads((out / "result.json").read_text())
            spent, chapters = spent + sum(e["seconds"] for e in results.values()), chapters + len(results)
        self.tell("nine runs", time.perf_counter() - began, spent, chapters)

    def sweep(self, name: str, workers: int, kill_each: int = 0) -> None:
        """A sweep; a worker is killed in every `kill_each`th chapter."""
        if not (self.folder / f"cache-{name}").exists():
            kept = shutil.ignore_patterns("chapters", "exact_parts", "comparisons", "explanation_maps")
            shutil.copytree(self.folder / "cache", self.folder / f"cache-{name}", ignore=kept)
        grid = [word for key, values in GRID.items() for word in ("--grid", f"{key}={','.join(values)}")]
        out, began, spent, chapters, kills = self.folder / name, time.perf_counter(), 0.0, 0, 0
        command = ["sweep", *COMMON, *grid, "--to", self.end, "--out", str(out), "--workers", str(workers)]
        process = self.start(f"cache-{name}", *command)
        for line in process.stdout:
            words = line.split()
            if re.match(r"\[\d+/\d+\] ", line) and words[2] != "report":
                if words[3] == "failed":
                    raise SystemExit(line)
                spent, chapters = spent + float(words[4]), chapters + 1
                if kill_each and chapters % kill_each == 0:
                    time.sleep(2.0)
                    kills += kill_worker(process.pid)
        told = f"{name}" + (f" ({kills} workers killed)" if kills else "")
        self.tell(told, time.perf_counter() - began, spent, chapters, workers)
        if workers == 2:
            self.compare(out)

    def compare(self, out: Path) -> None:
        """Print how many files of a sweep are those of the nine runs."""
        files, wrong = 0, 0
        for point in self.points:
            expected = contents(self.folder / "separate" / point.name)
            files, wrong = files + len(expected), wrong + len(differences(expected, contents(out / point.name)))
        log.info("  %d files compared with those of the nine runs, %d different", files, wrong)

    def tell(self, name: str, seconds: float, spent: float, chapters: int, workers: int = 1) -> None:
        """Print a line; what is neither spent in chapters nor in reports stands for start and engine."""
        log.info("%s: %.0f s, %d chapters of %.0f s in all; %.2f s of a worker's time for a chapter besides",
                 name, seconds, chapters, spent, (workers * seconds - spent) / chapters)  # fmt: skip


def kill_worker(command: int) -> int:
    """Kill one of the processes that execute chapters; how many were killed."""
    everyone = psutil.Process(command).children(recursive=True)
    busy = [p for p in everyone if any("ipykernel" in " ".join(c.cmdline()) for c in p.children())]
    if not busy:
        return 0
    random.choice(busy).kill()
    return 1


def main() -> None:
    """Print what planning, or execution, costs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--points", type=int, default=10_000)
    parser.add_argument("--execute", type=Path, metavar="FOLDER", help="a new folder")
    parser.add_argument("--to", default="06", metavar="NN")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    if not arguments.execute:
        plan(arguments.points)
        return
    execution = Execution(arguments.execute.resolve(), arguments.to)
    execution.separately()
    execution.sweep("one worker", 1)
    execution.sweep("two workers", 2)
    execution.sweep("two workers, killed", 2, kill_each=3)


if __name__ == "__main__":
    main()
