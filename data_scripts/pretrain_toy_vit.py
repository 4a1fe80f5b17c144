"""Pre-train the embedded toy backbone on renders of random birds (renderer-supervised).

    python data_scripts/pretrain_toy_vit.py --out qpm_lib/assets

The run can be stopped at any time and goes on from its last checkpoint. With the same settings,
thread count and processor type the weights are the same to the bit; `toy_vit.json` records the recipe,
the log and the hash.
"""

import argparse
import logging
from pathlib import Path

import torch

from qpm_lib.backbones import PretrainingConfig, pretrain


def main() -> None:
    """Parse the arguments and train."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--out", type=Path, default=Path("qpm_lib/assets"), help="folder for toy_vit.safetensors and toy_vit.json"
    )
    parser.add_argument(
        "--steps", type=int, default=PretrainingConfig.steps, help="training steps of 32 renders (default: %(default)s)"
    )
    parser.add_argument("--seed", type=int, default=PretrainingConfig.seed)
    parser.add_argument("--threads", type=int, default=1, help="threads of the training process (default: %(default)s)")
    parser.add_argument("--workers", type=int, default=1, help="processes that render ahead (default: %(default)s)")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.set_num_threads(arguments.threads)
    config = PretrainingConfig(steps=arguments.steps, seed=arguments.seed)
    pretrain(config, arguments.out, device=arguments.device, workers=arguments.workers)


if __name__ == "__main__":
    main()
