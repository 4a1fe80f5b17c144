"""The learned importance ranking beside every other method: at the measure it was trained for, and at the truth.

    python benchmarks/ranking.py RUN [--pictures 200] [--refine 10] [--methods NAME ...]

RUN is a run on rendered birds, finished up to chapter 4; explainers are read from it, or trained as chapter 10 trains
them. First table: insertion minus deletion (probability, mean colour, 21 fractions), and the lead of the one pass of
the explainer over each other method, paired, with 95 % intervals and p values corrected for their number. Second: the
checks against exact answers (0 is random, 1 the exact answer). Then what one map costs. Maps of the other methods and
all results are kept in the cache, so that a stopped table goes on.
"""

import argparse
import logging
import resource
import sys
import time
from pathlib import Path

import numpy as np
import torch
from explanations import Case, load, maps_of, open_cases, paired_ratio, save

import qpm_lib
from qpm_lib import metrics
from qpm_lib.backbones import state_hash
from qpm_lib.explain import METHODS, LearnedRanking, Target, embedded_start, train_ranking

log = logging.getLogger("benchmark")
FOLDERS = {"linear probe": "linear_probe", "finished": "model"}
OTHERS = tuple(name for name in METHODS if name != "ranking")


def explainer_of(run: "qpm_lib.runs.RunFolder", case: Case, model: str) -> LearnedRanking:
    """The explainer of a run, trained where it is missing."""
    target, config = Target(case.models[model], case.backbone), run.config.ranking
    start, seed, rows = embedded_start(target, config.channels), run.config.seed, case.store.rows(train=True)
    start_time = time.perf_counter()
    place = run.path / "explainers" / FOLDERS[model]
    method = train_ranking(target, case.dataset, rows, place, config, seed=seed, start=start)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**30 if sys.platform == "darwin" else 2**20)
    log.info("%s: explainer ready after %.0f s, peak of memory %.2f GB", model, time.perf_counter() - start_time, peak)
    method.seen = None
    return method


def gaps_of(case: Case, model: str, name: str, maps: list[np.ndarray]) -> np.ndarray:
    """Insertion minus deletion of each picture, kept in the cache."""
    path = case.path(model, f"{name}.gaps")
    if not path.exists():
        target, truths = Target(case.models[model], case.backbone), case.truths[model]
        own = torch.tensor(np.stack([m[0] for m in maps]), dtype=torch.float32)
        asked = [t.image for t in truths], own, torch.tensor([t.target for t in truths])
        save(path, [metrics.insertion(target, *asked) - metrics.deletion(target, *asked)])
    return load(path)[0]


def learned_maps(case: Case, model: str, method: LearnedRanking, refine: int) -> dict[str, list[np.ndarray]]:
    """Maps of one pass, for both classes of each picture, and refined ones for the first."""
    truths, found = case.truths[model], {"ranking": metrics.maps_for(method, case.truths[model])}
    path = case.path(model, f"refined {refine} {state_hash(method.decoder.state_dict())[:16]}")
    if refine and not path.exists():
        images, labels = [t.image for t in truths], torch.tensor([t.target for t in truths])
        save(path, [m[None].double().numpy() for m in method.refine(images, labels, steps=refine)])
    if refine:
        found[f"ranking, {refine} steps"] = load(path)
    return found


def as_checks(gaps: np.ndarray) -> list[metrics.PartChecks]:
    """Gaps on their own scale, as `metrics.skill_differences` reads them."""
    return [metrics.PartChecks({"gap": gaps}, {"gap": np.zeros_like(gaps)}, {"gap": np.ones_like(gaps)})]


def show_gaps(gaps: dict[str, np.ndarray]) -> None:
    """One table: means with intervals, and leads of the one pass."""
    checks = {name: as_checks(values) for name, values in gaps.items()}
    others = {name: found for name, found in checks.items() if name != "ranking"}
    leads = metrics.skill_differences(checks["ranking"], others, "gap")
    log.info("| method | insertion - deletion | lead of the learned ranking | p (Holm) |\n|---|---|---|---|")
    for name in gaps:
        alone = metrics.skill_differences(checks[name], {"zero": as_checks(np.zeros_like(gaps[name]))}, "gap")["zero"]
        cells = "| |"
        if name in leads:
            lead = leads[name]
            cells = f"{lead.value:+.3f} [{lead.low:+.3f}, {lead.high:+.3f}] | {lead.p:.4f} |"
        log.info("| %s | %.3f [%.3f, %.3f] | %s", name, alone.value, alone.low, alone.high, cells)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--pictures", type=int, default=200)
    parser.add_argument("--refine", type=int, default=10, help="steps; 0 leaves refinement out")
    parser.add_argument("--models", nargs="+", choices=list(FOLDERS), default=list(FOLDERS), metavar="MODEL")
    parser.add_argument("--methods", nargs="+", choices=OTHERS, default=list(OTHERS), metavar="NAME")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    run, [case] = qpm_lib.open_run(arguments.run), open_cases([arguments.run], arguments.pictures)
    for model in arguments.models:
        method = explainer_of(run, case, model)
        found = learned_maps(case, model, method, arguments.refine)
        made = state_hash(method.decoder.state_dict())[:16]
        gaps = {name: gaps_of(case, model, f"{name} {made}", maps) for name, maps in found.items()}
        for name in arguments.methods:
            if other := maps_of([case], model, name):
                gaps[name] = gaps_of(case, model, name, other[0])
        log.info("\n%s, %d pictures", model, len(case.rows))
        show_gaps(gaps)
        pixels = method.target.pixels([t.image for t in case.truths[model][:8]])
        log.info("one map: %.2f forward passes", cost(method, pixels))
        check = metrics.part_checks(found["ranking"], case.truths[model])
        for kind in metrics.CHECKS:
            skill = check.skill(kind)
            log.info("%s %s", kind, skill and f"{skill.value:.2f} [{skill[1]:.2f}, {skill[2]:.2f}]")


def cost(method: LearnedRanking, pixels: torch.Tensor) -> float:
    """Time of one map in forward passes of the backbone, median of pairs."""
    labels = torch.zeros(len(pixels), dtype=torch.long, device=pixels.device)

    def forward() -> None:
        with torch.no_grad():
            method.target(pixels)

    return paired_ratio(lambda: method.draw(pixels, labels), forward, 1.0, repeats=7)


if __name__ == "__main__":
    main()
