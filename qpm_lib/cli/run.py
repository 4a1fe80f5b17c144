"""`qpm run`: the chapters into a run folder, and its report."""

import argparse
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from qpm_lib.cli.output import pairs, show, show_table

_MINUTE = 60.0
NAME, SHORT = "run", "run the chapters into a run folder"
DESCRIPTION = """Runs the chapters 01 to 11 and 13 through papermill into a run folder: settings, results, figures, the
model, the executed notebooks and report/index.html. Finished chapters whose settings did not change are skipped, so a
stopped run goes on; chapters that another run has finished with the same settings, pictures and program are taken from
the cache folder (see qpm cache)."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what the command takes."""
    from qpm_lib.core import PROFILES, setting_names

    parser.description = DESCRIPTION
    parser.epilog = "settings for --set:\n  " + "\n  ".join(setting_names())
    start = f"settings to start from: {', '.join(PROFILES)} (default: toy)"
    parser.add_argument("--profile", default="toy", metavar="NAME", help=start)
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="run folder (default: runs/<profile>)")
    several = {"action": "append", "default": []}
    change = "change a setting; may be given more than once"
    parser.add_argument("--set", **several, metavar="KEY=VALUE", dest="settings", help=change)
    example = "change a notebook parameter, for example 05.n_features_shown=6"
    parser.add_argument("--param", **several, metavar="NN.NAME=VALUE", help=example)
    which = parser.add_mutually_exclusive_group()
    which.add_argument(
        "--from", dest="start", metavar="NN", help="run from this chapter on, even where nothing changed"
    )
    which.add_argument("--only", metavar="NN", help="run just this chapter")
    parser.add_argument("--to", metavar="NN", help="stop after this chapter; the report is complete after 07")
    bare = "leave out what only teaches: textbook forms, steps by hand, exercises, curves of trade-offs"
    parser.add_argument("--no-lesson", action="store_true", help=bare)
    fresh = "execute every chapter that is not finished here, also those that another run has finished"
    parser.add_argument("--fresh", action="store_true", help=fresh)
    leave_out = "leave out pictures that cannot be read, and record them (data.skip_damaged=true)"
    parser.add_argument("--skip-damaged", action="store_true", help=leave_out)
    parser.add_argument("--verbose", action="store_true", help="show the log of every step")


def execute(arguments: argparse.Namespace) -> int:
    """Run the command."""
    from qpm_lib.report import build_report
    from qpm_lib.runs import ChapterError, ChapterStore, chain, current_chapters, find_chapter, run_chapters

    run = _folder(arguments)
    chapters = chain(run.config)
    start, only, end = (
        find_chapter(c, chapters) if c else None for c in (arguments.start, arguments.only, arguments.to)
    )
    parameters = chapter_parameters(arguments.param, chapters, lesson=not arguments.no_lesson)
    names = [c.name for c in chapters]

    teller = _Teller(names)
    try:
        which = {"start": start, "only": only, "end": end}
        told = {"on_start": teller.start, "on_progress": teller.progress, "on_chapter": teller.done}
        store = None if arguments.fresh else ChapterStore()
        run_chapters(run, **which, parameters=parameters, store=store, **told)
    except BaseException as error:
        show()
        if isinstance(error, ChapterError | KeyboardInterrupt):
            try:
                build_report(run, parameters)
            except (ValueError, RuntimeError, OSError) as reason:
                sys.stderr.write(f"the report could not be made: {reason}\n")
        raise
    index = build_report(run, parameters)
    show()
    if "06_evaluation" in current_chapters(run, parameters):
        _show_results(run)
    show(f"\nreport: {index}")
    return 0


class _Teller:
    """What the terminal shows of the chapters: a line for each, which moves while it runs. A file gets a line when a
    chapter is done, and one every minute.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self.names, self.moving = names, sys.stdout.isatty()
        self.head, self.said = "", 0.0

    def start(self, name: str) -> None:
        self.head = f"[{self.names.index(name) + 1}/{len(self.names)}] {name:<26} "
        self.said = 0.0
        show(self.head, end="")

    def progress(self, found: Any) -> None:
        if self.moving:
            width = shutil.get_terminal_size().columns - 1
            show("\r" + f"{self.head}{found}"[:width].ljust(width), end="")
        elif found.seconds - self.said >= _MINUTE:
            self.said = found.seconds
            show(f"\n    {found}", end="")

    def done(self, report: Any) -> None:
        figures = ", ".join(f"{k.replace('_', ' ')} {v}" for k, v in report.figures.items())
        line = f"{report.status:<8} {report.seconds:6.1f} s   {figures}"
        if self.moving:
            show("\r" + " " * (shutil.get_terminal_size().columns - 1) + "\r" + self.head, end="")
        elif self.said:
            show(f"\n{self.head}", end="")
        show(line)


def _folder(arguments: argparse.Namespace) -> Any:
    """The run folder with its settings, checked as far as can be without pictures."""
    from qpm_lib.core import choose_device, load_profile
    from qpm_lib.runs import RunFolder

    settings = pairs(arguments.settings, "--set") | ({"data.skip_damaged": "true"} if arguments.skip_damaged else {})
    config = load_profile(arguments.profile, **with_whole_paths(settings))
    choose_device(config.device)
    return RunFolder((arguments.out or Path("runs") / arguments.profile).resolve(), config)


def with_whole_paths(settings: dict[str, str]) -> dict[str, str]:
    """Settings in which paths do not depend on the folder that a command was called in: chapters run in another."""
    paths = ("data.root", "backbone.weights")
    return {k: str(Path(v).expanduser().resolve()) if k in paths and v else v for k, v in settings.items()}


def _literal(text: str) -> Any:
    """A notebook parameter as papermill would read it from a command line."""
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return {"true": True, "false": False}.get(text.lower(), text)


def chapter_parameters(texts: Sequence[str], chapters: Sequence[Any], *, lesson: bool) -> dict[str, dict[str, Any]]:
    """Notebook parameters by chapter, from `NN.NAME=VALUE` texts.

    Raises
    ------
    ValueError : for a text that names no chapter and parameter.
    """
    from qpm_lib.runs import find_chapter

    values: dict[str, dict[str, Any]] = {} if lesson else {c.name: {"lesson": False} for c in chapters}
    for key, value in pairs(texts, "--param").items():
        chapter, dot, name = key.partition(".")
        if not dot:
            raise ValueError(f"--param {key!r} must name a chapter and a parameter, for example 05.n_features_shown=6")
        values.setdefault(find_chapter(chapter, chapters), {})[name] = _literal(value)
    return values


def _show_results(run: Any) -> None:
    from qpm_lib.core import METHODS, read_json
    from qpm_lib.runs import cell_text, single_cell

    metrics = run.load_metrics()
    columns = ["accuracy", "plausibility", "plausibility_chance", "plausibility_centre", "sid", "contrastiveness"]
    titles = {"plausibility_chance": "(uniform map)", "plausibility_centre": "(centred blob)", "sid": "SID"}
    rows = [["", *(titles.get(c, c) for c in columns)]]
    for key, name in METHODS.items():
        if key in metrics:
            rows.append([name, *(cell_text(single_cell(metrics[key], c)._replace(interval=()), c) for c in columns)])
    show_table(rows)
    s = read_json(run.path / "selection.json")
    if "objective" in s:
        how = f"gap {100 * s['gap']:.3f} % ({s['status']}, {s['seconds']:.1f} s)"
        show(f"  selection: objective {s['objective']:.4f}, proven bound {s['bound']:.4f}, {how}")
