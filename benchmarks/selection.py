"""The quadratic programme at growing size: the published bilinear form and the compact form on SCIP,
and this project's solver.

    python benchmarks/selection.py [--limit 60] [--sizes small cub]

Prints a table (Markdown): objective, proven bound, gap, seconds and the peak memory of a process that does nothing
else. Every method gets the same instance (`selection.simulated_relevance`, seeded), the same time limit and one thread.
The largest size takes minutes to prove anything: `--sizes imagenet --methods ours --gap 0.005 --limit 600`. With
`--similar 0.5` (methods `ours`) half as many pairs as there are classes must share all features but one; how many do is
the last column.
"""

import argparse
import json
import logging
import math
import resource
import subprocess
import sys

from qpm_lib import selection
from qpm_lib.core import SelectionConfig

log = logging.getLogger("benchmark")
SIZES = {
    "tiny": (24, 6, 8, 3),
    "small": (128, 20, 25, 5),
    "cub": (512, 200, 50, 5),
    "cars": (512, 196, 50, 5),
    "imagenet": (2048, 1000, 50, 5),
}


def measure(size: str, rule: str, method: str, limit: float, gap: float, seed: int, similar: float) -> dict:
    """One method on one instance; called in a process of its own."""
    n_features, n_classes, n, k = SIZES[size]
    a = selection.simulated_relevance(n_features, n_classes, seed=seed)
    r = selection.redundancy(a, n, rule)
    wanted = selection.paired_classes(a, SelectionConfig(pairs=similar))
    reached: dict[str, float] = {}
    if method == "ours":

        def watch(progress: selection.Progress) -> None:
            for level in (0.01, 0.005, 0.001):
                if progress.gap <= level:
                    reached.setdefault(f"{level:.1%}", round(progress.seconds, 1))

        options = {"gap": gap, "time_limit": limit, "seed": seed, "on_progress": watch}
        found = selection.solve(a, r, n_features=n, n_per_class=k, **options, **wanted)
    else:
        found = selection.solve_plain(a, r, n_features=n, n_per_class=k, form=method, time_limit=limit)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    shared = [(found.assignment[c] & found.assignment[d]).sum() for c, d in wanted.get("pair_constraints", [])]
    unit = 2**30 if sys.platform == "darwin" else 2**20
    return {
        "value": found.objective,
        "bound": found.bound,
        "seconds": found.seconds,
        "reached": reached,
        "peak": peak / unit,
        "pairs": int((r > 0).sum() // 2),
        "alike": f"{sum(int(s) == k - 1 for s in shared)} of {len(shared)}" if shared else "",
    }


def main() -> None:
    """Measure and print."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", default=["tiny", "small", "cub"], choices=list(SIZES))
    parser.add_argument("--rules", nargs="+", default=["as_coded"])
    parser.add_argument(
        "--methods", nargs="+", default=["bilinear", "compact", "ours"], choices=["bilinear", "compact", "ours"]
    )
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--limit", type=float, default=60.0, help="seconds per method and instance")
    parser.add_argument("--gap", type=float, default=0.0, help="gap at which our solver may stop")
    parser.add_argument("--similar", type=float, default=0.0, help="pairs that must be alike, per class")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        sys.stdout.write(json.dumps(measure(**json.loads(options.one))) + "\n")
        return
    jobs = [
        {"size": size, "rule": rule, "method": method, "limit": options.limit, "gap": options.gap, "seed": seed}
        | {"similar": options.similar}
        for size in options.sizes
        for rule in options.rules
        for seed in options.seeds
        for method in options.methods
    ]
    log.info(
        "| instance | pairs | method | objective | bound | gap | seconds | 1 % / 0.5 % / 0.1 % reached after | peak "
        "memory | alike |"
    )
    log.info("|---|---|---|---|---|---|---|---|---|---|")
    for job in jobs:
        command = [sys.executable, __file__, "--one", json.dumps(job)]
        out = subprocess.run(command, capture_output=True, text=True, check=True)  # noqa: S603 - this file
        found = json.loads(out.stdout.splitlines()[-1])
        gap = 100 * max(0.0, found["bound"] - found["value"]) / abs(found["value"])
        value, percent = ("none found", "-") if math.isnan(gap) else (f"{found['value']:.3f}", f"{gap:.2f} %")
        marks = " / ".join(
            f"{found['reached'][m]:.1f} s" if m in found["reached"] else "-" for m in ("1.0%", "0.5%", "0.1%")
        )
        f, c, *_ = SIZES[job["size"]]
        log.info(
            f"| {f} x {c}, {job['rule']}, seed {job['seed']} | {found['pairs']} | {job['method']} | {value} | "
            f"{found['bound']:.3f} "
            f"| {percent} | {found['seconds']:.1f} | {marks if job['method'] == 'ours' else ''} | {found['peak']:.2f} "
            f"GB | {found['alike']} |"
        )


if __name__ == "__main__":
    main()
