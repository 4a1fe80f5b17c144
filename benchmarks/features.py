"""What settings do to the features of a QPM: accuracy, purity, maps on the part, locality in the picture; over seeds.

    python benchmarks/features.py --out FOLDER "" "backbone.depth=4" "adapter.n_layers=1 dense.l1_maps=0" "bias=3"

Each argument holds changes to the profile `toy`, separated by blanks ("" for none). Chapters 01 to 04 are
run for every one with each seed, in a run folder in FOLDER: a stopped call goes on. `bias` is no setting of a run: with
it the programme pays for features that keep to one place (`selection.locality`), so much that the best of them counts
as that many percent of the objective, as chapter 3 shows it. 0 is a random feature or map in the last three columns, 1
the best possible; means and standard deviations are over seeds.
"""

import argparse
import logging
import sys
from pathlib import Path

import numpy as np
import torch
from ground_truth import measure_features

import qpm_lib
from qpm_lib import selection
from qpm_lib.core import content_hash, load_profile, read_json, write_json
from qpm_lib.model import accuracy, feature_vectors, outputs
from qpm_lib.runs import RunFolder, run_chapters

log = logging.getLogger("benchmark")
COLUMNS = "accuracy", "dense", "purity", "map on the part", "locality"


def measure(changes: str, seed: int, out: Path) -> dict[str, float]:
    """Run the chain up to chapter 4, or find it done, and measure the features of its model."""
    settings = dict(change.split("=", 1) for change in changes.split())
    bias = float(settings.pop("bias", 0))
    folder = out / f"{content_hash(settings)[:8]}-{seed}"
    kept = folder / (f"features-{bias:g}.json" if bias else "features.json")
    if kept.exists():
        return read_json(kept)
    run = RunFolder(folder.resolve(), load_profile("toy", **settings, seed=seed))
    run_chapters(run, end="04_fine_tuning")
    dataset, backbone = run.dataset(), run.backbone()
    store = run.features(dataset, backbone)
    model = (steered(run, store, bias) if bias else run.load_model()).with_backbone(backbone)
    worth = measure_features(model, dataset, qpm_lib.load_scenes(dataset.root), seed)
    values = accuracy(model, store), accuracy(run.load_dense(), store), *worth
    found = dict(zip(COLUMNS, map(float, values), strict=True))
    write_json(kept, found)
    return found


def steered(run: RunFolder, store: "qpm_lib.FeatureStore", bias: float) -> "qpm_lib.DinoQPM":
    """A model whose features are paid for keeping to one place."""
    dense, rows, config = run.load_dense(), store.rows(train=True), run.config.selection
    relevance = selection.relevance(feature_vectors(dense, store, rows), store.labels[rows].numpy(), constant="zero")
    some = rows[torch.randperm(len(rows), generator=torch.Generator().manual_seed(run.config.seed))[:200]]
    score = selection.locality(np.concatenate([out.maps.cpu().numpy() for out, _ in outputs(dense, store, some)]))
    plain, strength = run.load_selection(), bias / (100 * np.ptp(score))
    chosen = selection.solve(
        relevance,
        selection.redundancy(relevance, config.n_features, config.redundancy),
        n_features=config.n_features,
        n_per_class=config.n_per_class,
        gap=config.gap,
        time_limit=config.time_limit,
        seed=run.config.seed,
        bias=strength * plain.objective * score,
    )
    changed = len(set(plain.features.tolist()) - set(chosen.features.tolist()))
    log.info("bias %g: %d features are others (locality %.2f, before %.2f), %s", bias, changed,
             score[chosen.features].mean(), score[plain.features].mean(), chosen.status)  # fmt: skip
    return qpm_lib.fine_tune(dense, chosen, store, run.config)[0]


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
