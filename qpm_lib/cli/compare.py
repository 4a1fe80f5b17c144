"""`qpm compare`: every explanation method on every model, the same pictures, the same measures."""

import argparse
import sys
from pathlib import Path
from typing import Any

from qpm_lib.cli.output import check_place, show

NAME, SHORT = "compare", "measure explanation methods side by side"
DESCRIPTION = """Which explanation can be believed? All methods explain the predicted class of the same test pictures
for several models of finished runs, and every map is measured: against exact answers where pictures can be drawn again
(rendered birds), by taking patches away (four things to show instead, or tokens deleted), and by what it depends on.
Leaves tables with intervals (table.md, table.csv), all paired differences with corrected p values (differences.csv),
how well the measures that need no truth agree with those that are (agreement.csv), figures, and a page with all maps to
switch between (index.html). For example:
  qpm compare runs/toy --out compared                            the whole table, which takes hours without a GPU
  qpm compare runs/toy --pictures 16 --measures truth,form --out compared                a quick look
  qpm compare runs/toy --out compared --report                   the same, shown in the report of the run as well
  qpm compare runs/toy-0 runs/toy-1 runs/toy-2 --models qpm --out compared               means over three seeds
A stopped call goes on, and a call with more methods or measures takes only those that are new."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what the command takes."""
    parser.description = DESCRIPTION
    runs = "finished runs, which differ in seed or method alone"
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help=runs)
    some = "separated by commas (default: all that a model allows; see qpm explain --list-methods)"
    parser.add_argument("--methods", metavar="NAMES", help=some)
    models = "linear_probe (or probe), dense, qpm, sldd, qsenn (default: all models of the runs)"
    parser.add_argument("--models", metavar="NAMES", help=models)
    measures = "names or kinds: truth, holes, form, cost (default: all)"
    parser.add_argument("--measures", metavar="NAMES", help=measures)
    parser.add_argument("--pictures", type=int, default=200, metavar="N", help="test pictures (default: 200)")
    holes = "pictures on which patches are taken away, the slowest part (default: all of them)"
    parser.add_argument("--holes", type=int, metavar="N", help=holes)
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="where tables and figures go")
    shown = (
        "keep it in the run, too: its report shows it in the place of what chapter 11 found (after the next qpm run)"
    )
    parser.add_argument("--report", action="store_true", help=shown)


def execute(arguments: argparse.Namespace) -> int:
    """Run the command."""
    for option in ("pictures", "holes"):
        number = getattr(arguments, option)
        if number is not None and number < 1:
            raise ValueError(f"--{option} (={number}) must be at least 1")
    if missing := [path for path in arguments.runs if not (path / "config.json").is_file()]:
        raise ValueError(f"{missing[0]} is no run folder (config.json is missing): make one with qpm run --out")
    if arguments.report and len(arguments.runs) > 1:
        raise ValueError(f"--report keeps the table in one run, and {len(arguments.runs)} were given: leave it out")
    check_place(arguments.out, (), arguments.runs)

    from qpm_lib.comparison import check_methods, chosen, compare, open_cases
    from qpm_lib.core import config_from_dict, read_object, stage_key
    from qpm_lib.runs import RunFolder

    methods, measures = _names(arguments.methods), _names(arguments.measures)
    check_methods(methods)
    chosen(measures)
    models = tuple({"probe": "linear_probe"}.get(name, name) for name in _names(arguments.models) or ()) or None
    runs = [RunFolder(p.resolve(), config_from_dict(read_object(p / "config.json"))) for p in arguments.runs]
    cases = open_cases(runs, models=models, pictures=arguments.pictures)
    if cases[0].truths is None:
        sys.stderr.write("these pictures cannot be drawn again: measures of kind truth are left out\n")
    found = compare(cases, methods=methods, measures=measures, holes=arguments.holes)
    _write(found, arguments.out)
    if arguments.report:
        found.save(runs[0].compared, made_by=stage_key(runs[0].config, "ranking"))
        show(f"kept for the report of {runs[0].path}: qpm run renews it")
    return 0


def _names(text: str | None) -> tuple[str, ...] | None:
    if text is None:
        return None
    names = tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    if not names:
        raise ValueError(f"{text!r} names nothing: separate names by commas")
    return names


def _write(found: Any, out: Path) -> None:
    from qpm_lib.comparison import (
        agreement_table,
        difference_rows,
        long_agreement_rows,
        long_rows,
        score_table,
        to_csv,
        to_markdown,
    )
    from qpm_lib.core import write_atomically
    from qpm_lib.plotting import new_figure
    from qpm_lib.report import write_side_by_side

    texts = {
        "table.md": to_markdown(found),
        "table.csv": to_csv(long_rows(found)),
        "differences.csv": to_csv(difference_rows(found)),
    }
    figures = {"scores": score_table}
    if len(rows := long_agreement_rows(found)) > 1:
        texts["agreement.csv"], figures["agreement"] = to_csv(rows), agreement_table
    for name in ("agreement.csv", "agreement.png"):
        (out / name).unlink(missing_ok=True)
    found.save(out)
    for name, text in texts.items():
        write_atomically(out / name, lambda place, text=text: place.write_text(text, encoding="utf-8"))
    for name, draw in figures.items():
        figure = new_figure((11, 5 * len(found.models)), layout="constrained")
        for ax, model in zip(figure.subplots(len(found.models), squeeze=False)[:, 0], found.models, strict=True):
            draw(ax, found, model)
        write_atomically(out / f"{name}.png", lambda p, f=figure: f.savefig(p, dpi=110, format="png"))
    page = write_side_by_side(found, out)
    show(texts["table.md"])
    show(f"written: {page}, {', '.join([*list(texts), *(f'{name}.png' for name in figures)])}")
