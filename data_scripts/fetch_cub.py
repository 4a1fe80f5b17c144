"""Fetch CUB-200-2011 (Wah et al., 2011): 11,788 photographs of 200 bird species with parts, attributes,
boxes and segmentations.

    python data_scripts/fetch_cub.py --out data

Fetches CUB_200_2011.tgz (1.15 GB) and segmentations.tgz (39 MB) from data.caltech.edu, checks their SHA-256,
unpacks them into data/CUB_200_2011 (the segmentations into data/CUB_200_2011/segmentations) and counts what is there.
About 3 GB of disk are needed; the archives may be deleted afterwards. Stopped in between, the same command goes on.
A folder that is already there is only checked.

The photographs are for non-commercial research and education.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from qpm_lib.data import inventory, obtain, read_cub, told_by


def main(argv: Sequence[str] | None = None) -> None:
    """Parse the arguments, fetch, check and count."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--out", type=Path, default=Path("data"), help="folder to keep data sets in (default: %(default)s)"
    )
    arguments = parser.parse_args(argv)
    with told_by(parser):
        root = obtain("cub", arguments.out)
        obtain("cub_segmentations", arguments.out)
        print(f"{root}: {inventory(read_cub(root))}")
    print(f"next: qpm run --profile cub --set data.root={root}")


if __name__ == "__main__":
    main()
