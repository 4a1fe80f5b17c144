"""Train the explainer of importance rankings that every run on the embedded backbone begins from.

    python data_scripts/train_toy_ranking.py RUN1 RUN2 RUN3 [--steps 2887] [--batch-size 32] [--out FOLDER]

RUN1, RUN2 and so on are runs on rendered birds, finished up to chapter 4, that differ in their seed: the explainer
learns from their QPMs and linear probes in turn, on training pictures, and from no class of its own: first the order of
AttnLRP, then the measure itself. Those of seeds 1, 2 and 3 (`qpm run --set seed=1 --to 04 --out RUN1`) and the defaults
made `qpm_lib/assets/toy_ranking.safetensors`, in less than six minutes on an H200. A stopped call goes on. Chapter 10
adapts it to the model of its run.
"""

import argparse
import logging
import sys
from dataclasses import asdict, replace
from pathlib import Path

from PIL import Image

import qpm_lib
from qpm_lib.core import load_profile, write_json
from qpm_lib.explain import Target, save_start, train_ranking

log = logging.getLogger("train_toy_ranking")


class InMemory:
    """The training pictures of a data set, read once."""

    def __init__(self, dataset: "qpm_lib.ImageDataset") -> None:
        self.fingerprint = dataset.fingerprint
        self._pictures = {int(row): dataset.image(int(row)) for row in dataset.train_rows}

    def image(self, row: int) -> Image.Image:
        """The picture of a row."""
        return self._pictures[row]


def main() -> None:
    """Train, and write the weights with a card."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN")
    parser.add_argument("--steps", type=int, default=2887)
    parser.add_argument("--imitate", type=int, default=800, help="steps that learn the order of AttnLRP")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--fractions", type=int, default=4, help="shares that are taken away in a step, for each curve")
    parser.add_argument("--channels", type=int, default=96, help="width of the decoder")
    parser.add_argument("--out", type=Path, default=Path("toy_ranking"), help="folder (default: toy_ranking)")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    targets, backbone, dataset, store = [], None, None, None
    for folder in arguments.runs:
        run = qpm_lib.open_run(folder)
        if backbone is None:
            dataset, backbone = run.dataset(), run.backbone()
            store = run.features(dataset, backbone)
        if run.backbone().fingerprint != backbone.fingerprint or run.dataset().fingerprint != dataset.fingerprint:
            raise SystemExit(f"{folder} has other pictures or another backbone: give runs that differ in their seed")
        model = run.load_model().with_backbone(backbone)
        probe = qpm_lib.train_linear_probe(store, seed=run.config.seed)
        targets += [Target(model, backbone), Target(probe, backbone)]
    names = ("steps", "imitate", "batch_size", "fractions", "channels")
    config = replace(load_profile("toy").ranking, lr=1e-3, **{name: getattr(arguments, name) for name in names})

    def say(step: int, _: object) -> None:
        if step % 100 == 99:
            log.info("step %d of %d", step + 1, config.steps)

    method = train_ranking(targets, InMemory(dataset), store.rows(train=True), arguments.out, config, on_step=say)
    save_start(method.decoder, arguments.out)
    card = {"config": asdict(config), "seeds": [qpm_lib.open_run(f).config.seed for f in arguments.runs]}
    write_json(arguments.out / "toy_ranking.json", {**card, "backbone": backbone.fingerprint})


if __name__ == "__main__":
    main()
