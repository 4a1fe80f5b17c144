"""The `qpm` command as a whole: help, logging, exit statuses. What a command does stands in the file of its name."""

import argparse
import logging
import sys
from collections.abc import Sequence

from qpm_lib.cli import (
    backbones,
    cache,
    compare,
    doctor,
    evaluate,
    exercises,
    explain,
    extract,
    grade,
    inspect,
    predict,
    run,
    sweep,
)

COMMANDS = (
    run, sweep, extract, predict, explain, compare, inspect, evaluate, exercises, grade, backbones, cache, doctor
)  # fmt: skip
EPILOG = """examples:
  qpm doctor                                             is everything here that is needed?
  qpm run --profile toy --out runs/toy                   the whole course on rendered birds, on a laptop
  qpm run --profile toy --out runs/toy --set dense.epochs=30    change a setting: only what depends on it runs again
  qpm run --profile toy --out runs/toy --from 03         run chapters 03 to 07 again
  qpm run --profile cub --set data.root=CUB_200_2011 --set backbone.weights=dinov2_vitb14_reg4_pretrain.pth
  qpm run --profile toy --out runs/sldd --set selection.method=sldd      a baseline: sldd or qsenn
  qpm sweep --profile toy --out runs/sweep --grid seed=0,1,2 --grid selection.method=qpm,sldd,qsenn
  qpm predict runs/toy PICTURE... --heatmaps maps        class and reasons for pictures
  qpm explain runs/toy PICTURE... --methods intrinsic,cdam --out maps    the maps of several methods
  qpm compare runs/toy --pictures 16 --out compared      which of them can be believed: tables, and a page of maps
  qpm inspect runs/toy --out inside                      what the encoder groups together, without any class
  qpm evaluate --table runs/toy runs/sldd                the comparison table of these runs
  qpm backbones                                          which backbones there are
  qpm cache                                              what is kept between runs, and how large it is
  qpm run --profile folder --set data.root=my_pictures --set backbone.name=toy --set adapter.hidden=256
"""


def parser() -> argparse.ArgumentParser:
    """The parser of all commands."""
    whole = argparse.ArgumentParser(
        prog="qpm",
        description="Interpretable image classification on frozen vision transformers.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    names = " | ".join(command.NAME for command in COMMANDS)
    commands = whole.add_subparsers(dest="command", required=True, metavar=names)
    for command in COMMANDS:
        of_it = commands.add_parser(command.NAME, help=command.SHORT, formatter_class=whole.formatter_class)
        command.add_arguments(of_it)
        of_it.set_defaults(execute=command.execute)
    return whole


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command: 0 is success, 1 an error that is told in one line, 2 wrong usage, 130 Ctrl-C."""
    arguments = parser().parse_args(argv)
    level = logging.INFO if getattr(arguments, "verbose", False) else logging.WARNING
    logging.basicConfig(level=level, format="%(name)s: %(message)s")
    try:
        return arguments.execute(arguments)
    except KeyboardInterrupt:
        goes_on = arguments.command in (run.NAME, sweep.NAME, extract.NAME)
        again = "; run the same command again to go on" if goes_on else ""
        sys.stderr.write(f"\ninterrupted{again}\n")
        return 130
    except (ValueError, RuntimeError, OSError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 1


if __name__ == "__main__":
    sys.exit(main())
