"""`qpm evaluate`: tables of finished runs."""

import argparse
from pathlib import Path

from qpm_lib.cli.output import show

NAME, SHORT = "evaluate", "tables of finished runs"
DESCRIPTION = """Puts finished runs into the published comparison table: table.md, table.csv and table.png. Runs that
differ in nothing but the seed become one row with mean and spread, for example:
  for s in 0 1 2; do for m in qpm sldd qsenn; do
    qpm run --profile toy --out runs/$m-$s --set seed=$s --set selection.method=$m; done; done
  qpm evaluate --table runs/*-[012]"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what the command takes."""
    parser.description = DESCRIPTION
    parser.add_argument("--table", nargs="+", type=Path, required=True, metavar="RUN", help="run folders")
    where = "where the files go (default: runs/table)"
    parser.add_argument("--out", type=Path, default=Path("runs/table"), metavar="FOLDER", help=where)


def execute(arguments: argparse.Namespace) -> int:
    """Run the command."""
    from qpm_lib.core import write_atomically
    from qpm_lib.runs import read_runs, save_figure, table, to_csv, to_markdown

    for name in ("table.md", "table.csv", "table.png"):
        if (arguments.out / name).is_dir():
            raise ValueError(f"{arguments.out / name} is a folder, and a table goes there: choose another --out")
    rows = table(read_runs(arguments.table))
    markdown, sheet = to_markdown(rows), to_csv(rows)
    write_atomically(arguments.out / "table.md", lambda temporary: temporary.write_text(markdown, encoding="utf-8"))
    write_atomically(arguments.out / "table.csv", lambda temporary: temporary.write_text(sheet, encoding="utf-8"))
    save_figure(rows, arguments.out / "table.png")
    show(markdown)
    show(f"written: {arguments.out / 'table.md'}, table.csv, table.png")
    return 0
