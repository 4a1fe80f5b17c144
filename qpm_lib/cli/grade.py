"""`qpm grade`: exercises that somebody has done."""

import argparse
import sys
from pathlib import Path

from qpm_lib.cli.output import printable, show

NAME, SHORT = "grade", "say whether exercises are done rightly"
DESCRIPTION = """Executes exercises that somebody has done, on profile smoke, and compares what they compute with the
solutions; the exit status is 0 when all are right. The first time, the chapters they stand on run before (minutes).
Cells under the heading "Exercise" are executed as they are: only grade files of people whom you would let use this
computer. For example:
  qpm grade exercises/13_hierarchies_and_sets.ipynb
  qpm grade handed_in/*.ipynb --json grades.json"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what the command takes."""
    parser.description = DESCRIPTION
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE", help="notebooks of qpm exercises, completed")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all verdicts")
    seconds = "seconds that a cell may take (default: 600)"
    parser.add_argument("--timeout", type=int, default=600, metavar="S", help=seconds)


def execute(arguments: argparse.Namespace) -> int:
    """Run the command."""
    from qpm_lib.core import write_json
    from qpm_lib.runs import grade, read_answer

    if arguments.timeout < 1:
        raise ValueError(f"--timeout (={arguments.timeout}) must be at least 1")
    if arguments.json and (arguments.json.is_dir() or arguments.json.suffix == ".ipynb"):
        raise ValueError(f"--json {arguments.json} is a folder or a notebook: name a file for the verdicts")
    for path in arguments.files:
        read_answer(path)
    verdicts, right = [], 0
    for path in arguments.files:
        sys.stderr.write(f"{printable(str(path))} ...\n")
        verdict = grade(path, timeout=arguments.timeout)
        right += verdict.right
        verdicts.append({"file": str(path), **verdict._asdict()})
        show(f"{printable(str(path))}: {printable(verdict.words)}")
    if arguments.json:
        write_json(arguments.json, {"exercises": verdicts})
    show(f"{right} of {len(verdicts)} right")
    return 0 if right == len(verdicts) else 1
