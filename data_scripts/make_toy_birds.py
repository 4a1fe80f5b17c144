"""Render the toy birds into a folder in the layout of CUB-200-2011.

    python data_scripts/make_toy_birds.py --out toy_birds

The same numbers and seed give the same pictures. Use them with `qpm run --profile cub --set data.root=toy_birds --set
backbone.name=toy`, or let the profile `toy` render its own.
"""

import argparse
from pathlib import Path

from qpm_lib.data import write_toybirds


def main() -> None:
    """Parse the arguments and render."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder to make; it must not exist yet")
    parser.add_argument(
        "--species", type=int, default=24, help="even number of species, in pairs of twins (default: %(default)s)"
    )
    parser.add_argument("--train", type=int, default=100, help="training pictures per species (default: %(default)s)")
    parser.add_argument("--test", type=int, default=40, help="test pictures per species (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=3, help="seed of species and scenes (default: %(default)s)")
    arguments = parser.parse_args()
    if arguments.out.exists():
        parser.error(f"{arguments.out} exists: choose a new folder")
    write_toybirds(
        arguments.out,
        n_species=arguments.species,
        train_per_class=arguments.train,
        test_per_class=arguments.test,
        seed=arguments.seed,
    )


if __name__ == "__main__":
    main()
