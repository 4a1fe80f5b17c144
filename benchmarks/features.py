"""What settings do to the features of a QPM: accuracy, purity, maps on the part, locality in the picture; over seeds.

    python benchmarks/features.py --out FOLDER "" "backbone.depth=4" "adapter.n_layers=1 dense.l1_maps=0"

Each argument holds changes to the profile `toy`, separated by blanks ("" for none). Chapters 01 to 04 are run for every
one with each seed, in a run folder in FOLDER: a stopped call goes on. 0 is a random feature or map in the last three
columns, 1 the best possible; means and standard deviations are over seeds.
"""

import argparse
import logging
import sys
from pathlib import Path

import numpy as np
from ground_truth import measure_features

import qpm_lib
from qpm_lib.core import content_hash, load_profile, read_json, write_json
from qpm_lib.model import accuracy
from qpm_lib.runs import RunFolder, run_chapters

log = logging.getLogger("benchmark")
COLUMNS = "accuracy", "dense", "purity", "map on the part", "locality"


def measure(changes: str, seed: int, out: Path) -> dict[str, float]:
    """Run the chain up to chapter 4, or find it done, and measure the features of its model."""
    settings = dict(change.split("=", 1) for change in changes.split())
    folder = out / f"{content_hash(settings)[:8]}-{seed}"
    kept = folder / "features.json"
    if kept.exists():
        return read_json(kept)
    run = RunFolder(folder.resolve(), load_profile("toy", **settings, seed=seed))
    run_chapters(run, end="04_fine_tuning")
    dataset, backbone = run.dataset(), run.backbone()
    store = run.features(dataset, backbone)
    model = run.load_model().with_backbone(backbone)
    worth = measure_features(model, dataset, qpm_lib.load_scenes(dataset.root), seed)
    values = accuracy(model, store), accuracy(run.load_dense(), store), *worth
    found = dict(zip(COLUMNS, map(float, values), strict=True))
    write_json(kept, found)
    return found


def main() -> None:
    """Print a line per trial, and the table of means."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("changes", nargs="+", help='changes to the profile, such as "backbone.depth=4"')
    parser.add_argument("--out", type=Path, required=True, help="folder for the runs")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    logging.getLogger("papermill").setLevel(logging.WARNING)
    lines = []
    for changes in arguments.changes:
        found = []
        for seed in arguments.seeds:
            found.append(measure(changes, seed, arguments.out))
            log.info("%s, seed %d: %s", changes or "the profile", seed, {k: round(v, 4) for k, v in found[-1].items()})
        means, spreads = (
            [f([each[c] for each in found]) for c in COLUMNS] for f in (np.mean, lambda x: np.std(x, ddof=1))
        )
        cells = [f"{100 * m:.1f} ± {100 * s:.1f} %" for m, s in zip(means[:2], spreads[:2], strict=True)]
        cells += [f"{m:.2f} ± {s:.2f}" for m, s in zip(means[2:], spreads[2:], strict=True)]
        lines.append(f"| `{changes}` | " + " | ".join(cells) + " |")
    log.info("\n| settings | %s |\n%s|", " | ".join(COLUMNS), "|---" * (1 + len(COLUMNS)))
    log.info("%s", "\n".join(lines))


if __name__ == "__main__":
    main()
