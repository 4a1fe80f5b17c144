"""Coverage, size and coherence of prediction sets over many draws of the calibration pictures.

    python benchmarks/sets.py RUN... [--draws 200] [--per-class 10] [--model hierarchical] [--out FILE]

RUN are finished runs (chapter 13), for example of several seeds. In every draw the test pictures are dealt out anew:
`--per-class` of every class calibrate, the others test, and all methods get the same pictures. Brackets hold 95 % of
the draws; the last column is in how many of them the sets of the hierarchy are at most as large as those of the row
times 1 (times 1.2 for THR). `--model` names the folder in the run: `hierarchical`, or `model`, that of chapter 4.
"""

import argparse
import logging
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

import qpm_lib
from qpm_lib import conformal, metrics
from qpm_lib.core import write_atomically
from qpm_lib.model import calibration_rows, strengths

log = logging.getLogger("benchmark")
ALPHAS = (0.12, 0.1, 0.075, 0.05, 0.025, 0.01)
ALLOWED = {"THR": 1.2}


def makers(weight: torch.Tensor, seed: int) -> dict[str, conformal.HierarchicalSets | conformal.SoftmaxSets]:
    """Everything that is compared; the hierarchy comes first."""
    found: dict[str, conformal.HierarchicalSets | conformal.SoftmaxSets] = {
        "hierarchy": conformal.HierarchicalSets(weight, seed=seed),
        "hierarchy, published split": conformal.HierarchicalSets(weight, split="published"),
    }
    return found | {name: conformal.SoftmaxSets(name.lower(), seed=seed) for name in ("THR", "APS", "RAPS")}


def draws_of(folder: Path, options: argparse.Namespace) -> Iterator[tuple[float, str, metrics.SetQuality]]:
    """Alpha, method and what was measured, draw by draw."""
    run = qpm_lib.open_run(folder)
    dataset = run.dataset()
    store = run.features(dataset, run.backbone())
    model = qpm_lib.DinoQPM.load(run.path / options.model)
    rows, weight = store.rows(train=False), model.class_weight.detach()
    vector, logits = strengths(model, store, rows)
    labels, attributes = store.labels[rows], dataset.class_attributes
    similarity = None if attributes is None else metrics.attribute_similarity(attributes)
    log.info("%s: accuracy %.1f %%", folder, 100 * float((logits.argmax(1) == labels).float().mean()))
    for draw in range(options.draws):
        kept, rest = calibration_rows(labels, torch.arange(len(rows)), per_class=options.per_class, seed=draw)
        for name, maker in makers(weight, draw).items():
            maker.fit(vector[kept], logits[kept], labels[kept])
            count = maker.rule().count if isinstance(maker, conformal.HierarchicalSets) else len(kept)
            for alpha in ALPHAS:
                sets = maker.predict(vector[rest], logits[rest], alpha).numpy()
                truth = {"alpha": alpha, "calibrated_on": count, "similarity": similarity}
                yield alpha, name, metrics.set_quality(sets, labels[rest].numpy(), **truth)


def line(name: str, found: list[metrics.SetQuality], ours: list[metrics.SetQuality]) -> str:
    """Means over draws, the range of 95 % of the sizes, and how often ours are as small."""
    coverage, size = (np.array([getattr(q, what) for q in found]) for what in ("coverage", "size"))
    low, high = np.percentile(size, (2.5, 97.5))
    coherent = np.array([q.coherence for q in found])
    there = np.isfinite(coherent)
    coherence = f"{coherent[there].mean():.3f} in {there.sum()} draws" if there.any() else "none"
    limit = ALLOWED.get(name, 1.0)
    as_small = np.mean([q.size <= limit * other.size for q, other in zip(ours, found, strict=True)])
    ratio = f"{np.mean([q.size for q in ours]) / size.mean():.2f}, in {100 * as_small:.0f} % at most {limit:g}"
    return f"| {name} | {coverage.mean():.4f} | {size.mean():.3f} [{low:.2f}, {high:.2f}] | {coherence} | {ratio} |"


def report(folder: Path, options: argparse.Namespace) -> list[str]:
    """A table for each alpha."""
    found: dict[tuple[float, str], list[metrics.SetQuality]] = {}
    for alpha, name, quality in draws_of(folder, options):
        found.setdefault((alpha, name), []).append(quality)
    lines = [f"## {folder.name}, {options.model}, {options.draws} draws"]
    for alpha in ALPHAS:
        lines += ["", f"Confidence {1 - alpha:g}", "", "| | coverage | classes | coherence | hierarchy over this |"]
        lines += ["|---|---|---|---|---|"]
        ours = found[alpha, "hierarchy"]
        lines += [line(name, qualities, ours) for (a, name), qualities in found.items() if a == alpha]
    return lines


def main() -> int:
    """Measure the runs named on the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN")
    parser.add_argument("--draws", type=int, default=200)
    parser.add_argument("--per-class", type=int, default=10)
    parser.add_argument("--model", default="hierarchical")
    parser.add_argument("--out", type=Path, help="a file for the tables, as Markdown")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    lines = [line for run in options.runs for line in (*report(run, options), "")]
    log.info("%s", "\n".join(lines))
    if options.out:
        write_atomically(options.out, lambda path: path.write_text("\n".join(lines)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
