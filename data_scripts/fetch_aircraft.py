"""Fetch FGVC-Aircraft (Maji et al., 2013): 10,000 photographs of 100 aircraft variants with boxes.

    python data_scripts/fetch_aircraft.py --out data

Fetches fgvc-aircraft-2013b.tar.gz (2.75 GB) from robots.ox.ac.uk, checks its SHA-256, unpacks it into
data/fgvc-aircraft-2013b and counts what is there. About 6 GB of disk are needed; the archive may be deleted afterwards.
Stopped in between, the same command goes on. A folder that is already there is only checked.

The photographs are for non-commercial research only. Each has a copyright banner in its lowest 20 pixel rows;
it is not cut off.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from qpm_lib.data import inventory, obtain, read_aircraft, told_by


def main(argv: Sequence[str] | None = None) -> None:
    """Parse the arguments, fetch, check and count."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--out", type=Path, default=Path("data"), help="folder to keep data sets in (default: %(default)s)"
    )
    arguments = parser.parse_args(argv)
    with told_by(parser):
        root = obtain("aircraft", arguments.out)
        print(f"{root}: {inventory(read_aircraft(root))}")
    print(f"next: qpm run --profile aircraft --set data.root={root}")


if __name__ == "__main__":
    main()
