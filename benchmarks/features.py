"""What settings do to the features of a QPM: accuracy, purity, maps on the part, locality in the picture; over seeds.

    python benchmarks/features.py --out FOLDER "" "backbone.depth=4" "adapter.n_layers=1 dense.l1_maps=0"

Each argument holds changes to the profile `toy`, separated by blanks ("" for none). Every one is trained with each
seed (about four minutes each on two CPU cores), and is kept in a run folder in FOLDER: a stopped call goes on. 0 is a
random feature or map in the last three columns, 1 the best possible; means and standard deviations are over seeds.
"""

import argparse
import logging
import sys
from pathlib import Path

import numpy as np
from PIL import Image

import qpm_lib
from qpm_lib import metrics, selection
from qpm_lib.core import content_hash, load_profile, read_json, write_json
from qpm_lib.data import PARTS
from qpm_lib.model import accuracy, feature_vectors
from qpm_lib.runs import RunFolder

log = logging.getLogger("benchmark")
COLUMNS = "accuracy", "dense", "purity", "map on the part", "locality"


def measure(changes: str, seed: int, out: Path, n_birds: int, n_places: int) -> dict[str, float]:
    """Train one model, or find it trained, and measure its features."""
    settings = dict(change.split("=", 1) for change in changes.split())
    config = load_profile("toy", **settings, seed=seed)
    folder = out / f"{content_hash(settings)[:8]}-{seed}"
    if (folder / "features.json").exists():
        return read_json(folder / "features.json")
    run = RunFolder.create(folder, config)
    dataset, backbone = run.dataset(), run.backbone()
    store, scenes = run.features(dataset, backbone), qpm_lib.load_scenes(dataset.root)
    dense, _ = qpm_lib.train_dense(store, config)
    dense.eval()
    rows, chosen = store.rows(train=True), config.selection
    relevance = selection.relevance(feature_vectors(dense, store, rows), store.labels[rows].numpy(), constant="zero")
    choice = selection.solve(
        relevance,
        selection.redundancy(relevance, chosen.n_features, chosen.redundancy),
        n_features=chosen.n_features,
        n_per_class=chosen.n_per_class,
        gap=chosen.gap,
        time_limit=chosen.time_limit,
        seed=seed,
    )
    model, _ = qpm_lib.fine_tune(dense, choice, store, config)
    model = model.eval().with_backbone(backbone)

    shown = dataset.test_rows[np.linspace(0, len(dataset.test_rows) - 1, n_places).astype(int)]
    squares = [backbone.square(dataset.image(int(row))) for row in shown]
    used = [np.flatnonzero(model.class_weight[c].cpu()) for c in model.predict(squares).classes]
    bare = [scenes.render(dataset, int(row), without=PARTS[1:]).image for row in shown]
    fills = [backbone.square(Image.fromarray(picture)) for picture in bare]
    purity = metrics.feature_purity(lambda images: model.output(images)[:2], n_birds=n_birds, seed=seed)
    locality = metrics.feature_locality(lambda images: model.output(images)[:2], squares, used, fills, seed=seed)
    values = accuracy(model, store), accuracy(dense, store), purity.purity_skill, purity.on_part_skill, locality.skill
    found = dict(zip(COLUMNS, map(float, values), strict=True)) | {"gap": float(choice.gap)}
    write_json(folder / "features.json", found)
    return found


def main() -> None:
    """Print a line per trial, and the table of means."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("changes", nargs="+", help='changes to the profile, such as "backbone.depth=4"')
    parser.add_argument("--out", type=Path, required=True, help="folder for the runs")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--birds", type=int, default=300, help="random birds for purity")
    parser.add_argument("--pictures", type=int, default=32, help="test pictures for locality")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    lines = []
    for changes in arguments.changes:
        found = []
        for seed in arguments.seeds:
            found.append(measure(changes, seed, arguments.out, arguments.birds, arguments.pictures))
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
