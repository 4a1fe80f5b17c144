"""`qpm exercises`: the exercises of the chapters without their solutions."""

import argparse
from pathlib import Path

from qpm_lib.cli.output import show

NAME, SHORT = "exercises", "write the exercises without solutions"
DESCRIPTION = """Writes a notebook for every exercise: the chapter as far as its exercise, on profile smoke, without the
solution. `make exercises` also runs the chapters they stand on, so that they can be opened at once. Whoever has done
one hands the file in, and `qpm grade FILE` says whether the answer is right. For example:
  qpm exercises --out exercises"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what the command takes."""
    parser.description = DESCRIPTION
    parser.add_argument("--out", type=Path, default=Path("exercises"), metavar="FOLDER", help="default: exercises")
    parser.add_argument("--overwrite", action="store_true", help="replace notebooks that are there already")


def execute(arguments: argparse.Namespace) -> int:
    """Run the command."""
    from qpm_lib.runs import EXERCISES, write_exercise

    if arguments.out.is_file():
        raise ValueError(f"--out {arguments.out} is a file: name a folder")
    there = [name for name in EXERCISES if (arguments.out / f"{name}.ipynb").exists()]
    if there and not arguments.overwrite:
        raise ValueError(
            f"{arguments.out} holds {len(there)} of them already, perhaps with answers: choose another --out, or "
            "--overwrite"
        )
    for name in sorted(EXERCISES):
        show(str(write_exercise(name, arguments.out)))
    return 0
