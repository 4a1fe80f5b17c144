"""Explanation methods side by side: what they cost, and whether they say what the model does.

    python benchmarks/explanations.py cost [--backbones toy dinov2_vits14_reg] [--pictures 8]
    python benchmarks/explanations.py truth RUN [RUN ...] [--pictures 200] [--methods NAME ...]
    python benchmarks/explanations.py fills RUN [--pictures 16] [--methods NAME ...]

`cost`: time per picture as a multiple of one forward pass of the backbone, in one run, and by how much each method
raises the peak of memory so far; backbones other than `toy` with random weights. `truth`: skill of every method on the
linear probe and on the finished model of one or more runs on rendered birds, which differ in their seed alone: 0 is
random, 1 the exact answer; intervals over pictures, and whether the intrinsic map is better (paired, corrected).
`fills`: the gap between taking the least and the most important patches away, with five things to show instead, beside
the same gap with parts that are really drawn away. Maps and exact answers are kept in the cache, so that a stopped
table goes on; after a change to a method, delete its maps there (`explanation_maps`).
"""

import argparse
import gc
import logging
import resource
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from scipy.stats import spearmanr
from torch import nn

import qpm_lib
from qpm_lib import metrics
from qpm_lib.backbones import BACKBONES, random_backbone, state_hash
from qpm_lib.core import cache_folder, content_hash, progress, write_atomically
from qpm_lib.explain import METHODS, Target, make, possible
from qpm_lib.model import LinearProbe, Output

log = logging.getLogger("benchmark")
SLOW = ("integrated_gradients", "token_ablation", "rise")
SHARED = ("token_ablation", "rise")  # methods that ask for all classes at once


class Together(nn.Module):
    """Several classifiers as one, the classes of each after those of the one before.

    With `normalised`, logits are log-probabilities within each classifier, so that the softmax over all classes is
    proportional to the probabilities of each.
    """

    def __init__(self, models: Sequence[nn.Module], *, normalised: bool) -> None:
        super().__init__()
        self.models, self.normalised = nn.ModuleList(models), normalised
        self.class_weight = torch.zeros(sum(len(model.class_weight) for model in models), 1)
        self.device = models[0].device

    def forward(self, patches: torch.Tensor, cls: torch.Tensor) -> Output:
        """Logits side by side; maps and vector of the first."""
        found = [model(patches, cls) for model in self.models]
        logits = [out.logits.log_softmax(1) if self.normalised else out.logits for out in found]
        return Output(found[0].maps, found[0].vector, torch.cat(logits, 1))


def random_target(name: str) -> Target:
    """A linear probe on a backbone with random weights (the toy backbone with its own)."""
    backbone = qpm_lib.load_backbone("toy") if name == "toy" else random_backbone(name)
    torch.manual_seed(0)
    return Target(LinearProbe(torch.randn(24, backbone.width), torch.zeros(24)), backbone)


def measure_cost(names: Sequence[str], pictures: int) -> None:
    """Print the table of costs."""
    rng = np.random.default_rng(0)
    for name in names:
        target = random_target(name)
        size = target.backbone.image_size
        images = [Image.fromarray(rng.integers(0, 255, (size, size, 3), dtype=np.uint8)) for _ in range(pictures)]
        labels, pixels = torch.zeros(pictures, dtype=torch.long), target.pixels(images)

        def forward(target: Target = target, pixels: torch.Tensor = pixels) -> None:
            with torch.no_grad():
                target(pixels)

        blocks = len(target.backbone.blocks)
        log.info("\n%s: %d blocks, %d patches, batches of %d", name, blocks, target.grid**2, pictures)
        log.info("| method | forward passes | expected | peak memory, MB more than before |")
        log.info("|---|---|---|---|")
        for method in possible(target):
            explain = make(method, target, batch_size=32 if method in SLOW else pictures)
            few = 1 if method in SLOW else pictures

            def run(explain=explain, few: int = few, images=images, labels=labels) -> None:
                explain(images[:few], labels[:few])

            base = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            ratio = paired_ratio(run, forward, few / pictures, repeats=1 if method in SLOW else 7)
            more = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - base) / 1024
            log.info("| %s | %.2f | %s | %.0f |", method, ratio, METHODS[method].cost, more)
        gc.collect()


def paired_ratio(run, forward, share: float, *, repeats: int) -> float:
    """Median over pairs of the time of a method and that of a forward pass right before it."""
    forward()
    if repeats > 1:
        run()
    ratios = []
    for _ in range(repeats):
        start = time.perf_counter()
        for _ in range(3):
            forward()
        middle = time.perf_counter()
        run()
        ratios.append((time.perf_counter() - middle) / ((middle - start) / 3 * share))
    return float(np.median(ratios))


class Case:
    """The pictures and models of one run, with their exact answers and what is true of them."""

    def __init__(self, path: Path, pictures: int) -> None:
        run = qpm_lib.open_run(path)
        self.dataset, self.backbone = run.dataset(), run.backbone()
        self.store, self.scenes = run.features(self.dataset, self.backbone), qpm_lib.load_scenes(self.dataset.root)
        self.models = {
            "linear probe": qpm_lib.train_linear_probe(self.store, seed=run.config.seed),
            "finished": run.load_model().with_backbone(self.backbone),
        }
        rows = self.dataset.test_rows
        self.rows = rows[np.linspace(0, len(rows) - 1, min(pictures, len(rows))).astype(int)]

    def read_answers(self) -> None:
        """Take exact answers from the cache, or draw and ask."""
        self.exact = metrics.exact_parts(self.models, self.backbone, self.dataset, self.scenes, self.rows, workers=1)
        self.truths = {
            name: metrics.picture_truths(answers, self.dataset, self.scenes, self.store.grid)
            for name, answers in self.exact.items()
        }

    def path(self, model: str, method: str) -> Path:
        """Where the maps of a method are kept."""
        key = [self.backbone.fingerprint, state_hash(self.models[model].state_dict()), self.rows.tolist()]
        return cache_folder() / "explanation_maps" / content_hash(key) / f"{method}.npz"


def open_cases(paths: Sequence[Path], pictures: int) -> list[Case]:
    """Runs with their exact answers; what is missing is drawn once and shown to the models of all runs."""
    cases = [Case(path, pictures) for path in paths]
    first = cases[0]
    if any(c.backbone.fingerprint != first.backbone.fingerprint or c.dataset.root != first.dataset.root for c in cases):
        raise SystemExit("the runs differ in backbone or pictures: give runs that differ in their seed alone")
    everybody = {f"{i} {name}": model for i, case in enumerate(cases) for name, model in case.models.items()}
    metrics.exact_parts(everybody, first.backbone, first.dataset, first.scenes, first.rows, workers=1)
    for case in cases:
        case.read_answers()
    return cases


def maps_of(cases: Sequence[Case], model: str, method: str) -> list[list[np.ndarray]]:
    """Maps of a method for every run, kept in the cache; none where the model does not allow it."""
    if method not in possible(Target(cases[0].models[model], cases[0].backbone)):
        return []
    if method in SHARED and not all(case.path(model, method).exists() for case in cases):
        explain_together(cases, method)
    for case in cases:
        if not case.path(model, method).exists():
            explain = make(method, Target(case.models[model], case.backbone))
            save(case.path(model, method), metrics.maps_for(explain, case.truths[model]))
    return [load(case.path(model, method)) for case in cases]


def explain_together(cases: Sequence[Case], method: str) -> None:
    """One pass over the versions of each picture, for all models of all runs."""
    everybody = [(case, name) for case in cases for name in case.models]
    models = [case.models[name] for case, name in everybody]
    explain = make(method, Target(Together(models, normalised=method == "rise"), cases[0].backbone))
    first = np.cumsum([0, *(len(model.class_weight) for model in models)])
    found: list[list[np.ndarray]] = [[] for _ in everybody]
    for i in progress(range(len(cases[0].rows)), method):
        asked, owner = [], []
        for j, (case, name) in enumerate(everybody):
            truth = case.truths[name][i]
            wanted = [truth.target] if truth.rival is None else [truth.target, truth.rival]
            asked += [int(first[j]) + label for label in wanted]
            owner += [j] * len(wanted)
        image = cases[0].truths["finished"][i].image
        maps = explain([image] * len(asked), torch.tensor(asked)).double().numpy()
        for j in range(len(everybody)):
            found[j].append(maps[np.array(owner) == j])
    for (case, name), maps in zip(everybody, found, strict=True):
        save(case.path(name, method), maps)


def save(path: Path, maps: Sequence[np.ndarray]) -> None:
    """Write maps of pictures, one or two each."""

    def write(place: Path) -> None:
        with open(place, "wb") as file:
            np.savez(file, **{f"{i:05d}": m for i, m in enumerate(maps)})

    write_atomically(path, write)


def load(path: Path) -> list[np.ndarray]:
    """Read what `save` wrote."""
    with np.load(path, allow_pickle=False) as found:
        return [found[name] for name in sorted(found)]


def measure_truth(paths: Sequence[Path], pictures: int, methods: Sequence[str]) -> None:
    """Print skills of all methods, and how they compare with the intrinsic map."""
    cases = open_cases(paths, pictures)
    checks: dict[tuple[str, str], list[metrics.PartChecks]] = {}
    removal: dict[tuple[str, str], list[float]] = {}
    for model in ("linear probe", "finished"):
        for method in methods:
            for case, maps in zip(cases, maps_of(cases, model, method), strict=False):
                checks.setdefault((model, method), []).append(metrics.part_checks(maps, case.truths[model]))
                gone = metrics.part_deletion(maps, case.exact[model], case.truths[model])
                score, random, ceiling = (np.nanmean(gone[key]) for key in ("scores", "random", "ceiling"))
                removal.setdefault((model, method), []).append((score - random) / (ceiling - random))
    log.info("%d pictures, %d runs; mean skill over runs, [95 %% interval]", len(cases[0].rows), len(cases))
    log.info("\n| model | method | %s | parts drawn away |", " | ".join(metrics.CHECKS))
    log.info("|---" * (3 + len(metrics.CHECKS)) + "|")
    for (model, method), found in checks.items():
        cells = (mean_skill(found, check) for check in metrics.CHECKS)
        log.info("| %s | %s | %s | %.2f |", model, method, " | ".join(cells), np.mean(removal[model, method]))
    compare(checks)


def mean_skill(found: Sequence[metrics.PartChecks], check: str) -> str:
    """Mean over runs with the interval over pictures, as text."""
    nothing = [metrics.PartChecks(one.random, one.random, one.ceiling) for one in found]
    over = metrics.skill_differences(found, {"random": nothing}, check).get("random")
    return "n/a" if over is None else f"{over.value:.2f} [{over.low:.2f}, {over.high:.2f}]"


def compare(checks: dict[tuple[str, str], list[metrics.PartChecks]]) -> None:
    """Print the lead of the finished model's own map over every other method on the same model."""
    own = checks.get(("finished", "intrinsic"))
    others = {
        method: found for (model, method), found in checks.items() if model == "finished" and method != "intrinsic"
    }
    if not own or not others:
        return
    log.info("\nlead of the intrinsic map, finished model: [95 %% interval], p (Holm, over %d methods)", len(others))
    log.info("| method | %s |", " | ".join(metrics.CHECKS))
    log.info("|---" * (1 + len(metrics.CHECKS)) + "|")
    leads = {check: metrics.skill_differences(own, others, check) for check in metrics.CHECKS}
    for method in others:
        cells = []
        for check in metrics.CHECKS:
            lead = leads[check].get(method)
            cells.append(
                "n/a" if lead is None else f"{lead.value:+.2f} [{lead.low:+.2f}, {lead.high:+.2f}], p {lead.p:.3f}"
            )
        log.info("| %s | %s |", method, " | ".join(cells))


def measure_fills(path: Path, pictures: int, methods: Sequence[str]) -> None:
    """Print the gap of curves with several fills beside that with the truth, and how well they agree over methods."""
    [case] = open_cases([path], pictures)
    for model in case.models:
        target, truths = Target(case.models[model], case.backbone), case.truths[model]
        images, labels = [t.image for t in truths], torch.tensor([t.target for t in truths])
        effects = metrics.box_effects(target, images)
        rows: dict[str, list[float]] = {}
        for method in methods:
            found = maps_of([case], model, method)
            if not found:
                continue
            [maps] = found
            own = torch.tensor(np.stack([m[0] for m in maps]), dtype=torch.float32)
            gone = metrics.part_deletion(maps, case.exact[model], truths)
            row = [np.nanmean(gone["scores"] - gone["random"])]
            for fill in metrics.FILLS:
                row.append(metrics.curve_gap(target, images, own, labels, fill=fill, steps=11).mean())
            row.append(np.nanmean(metrics.box_sensitivity(own, labels, effects)))
            row.append(np.nanmean(metrics.compactness(own)))
            rows[method] = [float(x) for x in row]
        heads = ["parts drawn away", *(f"gap, {fill}" for fill in metrics.FILLS), "box sensitivity", "compactness"]
        log.info("\n%s, %d pictures\n| method | %s |", model, len(images), " | ".join(heads))
        log.info("|---" * (1 + len(heads)) + "|")
        for method, row in rows.items():
            log.info("| %s | %s |", method, " | ".join(f"{x:.2f}" for x in row))
        table = np.array(list(rows.values()))
        agree = [f"{spearmanr(table[:, 0], table[:, j]).statistic:.2f}" for j in range(1, table.shape[1])]
        log.info("| rank correlation with the truth over %d methods | | %s |", len(table), " | ".join(agree))


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    kinds = parser.add_subparsers(dest="what", required=True)
    cost = kinds.add_parser("cost", help="time and memory")
    cost.add_argument("--backbones", nargs="+", default=["toy", "dinov2_vits14_reg"], choices=list(BACKBONES))
    cost.add_argument("--pictures", type=int, default=8)
    for name, pictures in (("truth", 200), ("fills", 16)):
        part = kinds.add_parser(name)
        part.add_argument("runs", nargs="+" if name == "truth" else 1, type=Path)
        part.add_argument("--pictures", type=int, default=pictures)
        part.add_argument("--methods", nargs="+", choices=list(METHODS), default=list(METHODS), metavar="NAME")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    if arguments.what == "cost":
        measure_cost(arguments.backbones, arguments.pictures)
    elif arguments.what == "truth":
        measure_truth(arguments.runs, arguments.pictures, arguments.methods)
    else:
        measure_fills(arguments.runs[0], arguments.pictures, arguments.methods)


if __name__ == "__main__":
    main()
