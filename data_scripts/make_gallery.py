"""Make the gallery of a finished run: small pictures and a page that shows them.

    python data_scripts/make_gallery.py runs/toy --out notebooks/gallery

The screenshot of the explorer needs Chromium or Google Chrome; without one it is left out.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from qpm_lib.core import config_from_dict, read_json
from qpm_lib.data import told_by
from qpm_lib.report import make_gallery
from qpm_lib.runs import RunFolder


def main(argv: Sequence[str] | None = None) -> None:
    """Parse the arguments, make the pictures, and list them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="run folder")
    parser.add_argument(
        "--out", type=Path, default=Path("notebooks/gallery"), help="where the gallery goes (default: %(default)s)"
    )
    arguments = parser.parse_args(argv)
    with told_by(parser):
        run = RunFolder(arguments.run, config_from_dict(read_json(arguments.run / "config.json")))
        for exhibit in make_gallery(run, arguments.out):
            print(f"{arguments.out / exhibit.file}: {(arguments.out / exhibit.file).stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
