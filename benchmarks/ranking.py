"""The learned importance ranking: what training it costs, and what a few steps of refinement for each picture add.

    python benchmarks/ranking.py RUN [--pictures 48] [--refine 10] [--methods NAME ...]

RUN is a run on rendered birds, finished up to chapter 4; explainers are read from it, or trained as chapter 10 trains
them. The table has insertion minus deletion (probability, mean colour) and the checks against exact answers for the map
of one pass, for the refined one and for other methods, then all paired differences from the refined map. Everything
else about one pass, beside all methods, is in `qpm compare RUN`.
"""

import argparse
import logging
import resource
import sys
import time
from pathlib import Path

import torch
from PIL import Image

import qpm_lib
from qpm_lib import comparison
from qpm_lib.explain import LearnedRanking, Target, embedded_start, train_ranking

log = logging.getLogger("benchmark")
MEASURES = ("holes_mean", "truth")


def train(run: "qpm_lib.runs.RunFolder", model: str, target: Target) -> None:
    """Train the explainer of a model where it is missing, and say what it cost."""
    config, dataset = run.config.ranking, run.dataset()
    place = run.path / "explainers" / ("linear_probe" if model == "linear_probe" else "model")
    options = {"seed": run.config.seed, "start": embedded_start(target, config.channels)}
    begin = time.perf_counter()
    train_ranking(target, dataset, dataset.train_rows.tolist(), place, config, **options)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**30 if sys.platform == "darwin" else 2**20)
    log.info("%s: explainer ready after %.0f s, peak of memory %.2f GB", model, time.perf_counter() - begin, peak)


class Refined:
    """The map of the explainer, made better for each picture by a few steps; the rival keeps the map of one pass."""

    def __init__(self, method: LearnedRanking, steps: int) -> None:
        self.method, self.steps = method, steps

    def __call__(self, images: list[Image.Image], targets: torch.Tensor) -> torch.Tensor:
        """Maps (B, g, g); the comparison asks for the class and for its rival in turn."""
        maps, own = self.method(images, targets), slice(0, None, 2)
        maps[own] = self.method.refine(images[own], targets[own], steps=self.steps)
        return maps


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--pictures", type=int, default=48)
    parser.add_argument("--refine", type=int, default=10, help="steps")
    parser.add_argument("--models", nargs="+", default=["linear_probe", "qpm"])
    parser.add_argument("--methods", nargs="+", default=["attn_lrp", "token_ablation", "random"], metavar="NAME")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    run = qpm_lib.open_run(arguments.run)
    for case in comparison.open_cases([run], models=arguments.models, pictures=1):
        train(run, case.model, case.target)
    cases = comparison.open_cases([run], models=arguments.models, pictures=arguments.pictures)
    methods = ["ranking", *arguments.methods]
    for case in cases:
        method = case.methods()["ranking"](case.target)
        extra = {"refined": lambda _, method=method: Refined(method, arguments.refine)}
        found = comparison.compare([case], methods=methods, measures=MEASURES, extra=extra, shown=0)
        log.info("\n%s", comparison.to_markdown(found))
        for measure in found.measures(case.model):
            for (_, other), one in found.differences(case.model, measure, against="refined").items():
                ends = f"[{one.low:+.3f}, {one.high:+.3f}]"
                log.info("%s, refined - %s: %+.3f %s, p %.4f", measure, other, one.value, ends, one.p)


if __name__ == "__main__":
    main()
