"""`qpm sweep`: many runs, every distinct chapter once, on several processes or machines."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from qpm_lib.cli.output import pairs, show
from qpm_lib.cli.run import chapter_parameters, with_whole_paths

NAME, SHORT = "sweep", "many runs over a grid of settings, on several processes or machines"
DESCRIPTION = """Runs the chapters for all combinations of a grid, and for all lines of a plan: a run folder with its
report for each, exactly as qpm run would make it, then one table and a page that links all reports. Chapters that
several points have in common are executed once. A stopped sweep goes on, and so does one whose workers died.

  qpm sweep --profile toy --out runs/sweep --grid seed=0,1,2 --grid selection.method=qpm,sldd,qsenn --to 06
  qpm sweep --profile toy --out runs/sweep --plan points.csv --dry-run
  qpm sweep --profile cub --set data.root=CUB_200_2011 --grid seed=0,1,2 --out /shared/sweep \\
      --scheduler tcp://host:8786

A plan is a CSV file: settings as columns, a line for each point. Several workers need the extra [cluster]."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what the command takes."""
    parser.description = DESCRIPTION
    parser.add_argument("--profile", default="toy", metavar="NAME", help="settings to start from (default: toy)")
    parser.add_argument("--out", type=Path, default=Path("runs/sweep"), metavar="FOLDER", help="default: runs/sweep")
    several = {"action": "append", "default": []}
    parser.add_argument("--set", **several, metavar="KEY=VALUE", dest="settings", help="a setting of all points")
    varied = "values of a setting, separated by commas; several grids give all combinations"
    parser.add_argument("--grid", **several, metavar="KEY=A,B", help=varied)
    parser.add_argument(
        "--plan", type=Path, metavar="FILE", help="CSV file: settings as columns, a line for each point"
    )
    parser.add_argument("--param", **several, metavar="NN.NAME=VALUE", help="a notebook parameter of all points")
    parser.add_argument("--to", metavar="NN", help="stop after this chapter")
    bare = "leave out what only teaches (recommended: see README for how much faster it is)"
    parser.add_argument("--no-lesson", action="store_true", help=bare)
    where = parser.add_mutually_exclusive_group()
    processes = "processes on this machine, which share its cores (default: 2)"
    where.add_argument("--workers", type=int, default=2, metavar="N", help=processes)
    where.add_argument("--scheduler", metavar="ADDRESS", help="of dask.distributed, for example tcp://host:8786")
    parser.add_argument("--dry-run", action="store_true", help="list points and chapters, and execute nothing")


def execute(arguments: argparse.Namespace) -> int:
    """Run the command."""
    from qpm_lib.core import cache_folder
    from qpm_lib.runs import ChapterStore, chain, find_chapter, this_computer
    from qpm_lib.sweep import plan_sweep, read_points, run_sweep, start_workers, sweep_page, threads_each

    grid = {key: _values(key, text) for key, text in pairs(arguments.grid, "--grid").items()}
    common = with_whole_paths(pairs(arguments.settings, "--set"))
    points = read_points(arguments.profile, common=common, grid=grid, plan=arguments.plan)
    chapters = chain(points[0].config)
    end = find_chapter(arguments.to, chapters) if arguments.to else None
    parameters = _for_all(arguments, points)
    device = points[0].config.device
    if arguments.dry_run:
        threads = None if arguments.scheduler else threads_each(arguments.workers)
        store = ChapterStore(computer=this_computer(device, threads))
        _list(points, plan_sweep(points, store, end=end, parameters=parameters), store)
        return 0
    _check(points, arguments.out)
    folders = [arguments.out.resolve(), cache_folder().resolve()]
    options = {"scheduler": arguments.scheduler, "folders": folders, "device": device}
    with start_workers(arguments.workers, **options) as workers:
        store = ChapterStore(computer=workers.computer)
        plan = plan_sweep(points, store, end=end, parameters=parameters)
        todo = len(plan.missing(store))
        show(f"{len(points)} points, {len(plan.tasks)} distinct chapters, {len(plan.tasks) - todo} of them known; "
             f"{workers.count} workers with {workers.threads} threads each")  # fmt: skip
        tell = _Teller(todo + len(points))
        failed = run_sweep(points, plan, arguments.out, workers, store, end=end, parameters=parameters, on_done=tell)
    _tables(points, arguments.out, failed)
    show(f"\nreports: {sweep_page(points, arguments.out, failed)}")
    for name, words in failed.items():
        sys.stderr.write(f"failed: {name}: {words.splitlines()[0]}\n")
    return 1 if failed else 0


def _values(key: str, text: str) -> list[str]:
    values = [value.strip() for value in text.split(",")]
    if not all(values):
        raise ValueError(f"--grid {key}={text!r} holds an empty value: separate values by single commas")
    return values


def _for_all(arguments: argparse.Namespace, points: Sequence[Any]) -> dict[str, dict[str, Any]]:
    """Notebook parameters of the chapters of all points, those of the baselines included."""
    from qpm_lib.runs import chain

    chapters = {chapter.name: chapter for point in points for chapter in chain(point.config)}
    return chapter_parameters(arguments.param, list(chapters.values()), lesson=not arguments.no_lesson)


def _check(points: Sequence[Any], out: Path) -> None:
    """What can be known of every point before anything starts."""
    from qpm_lib.runs import RunFolder, check_inputs

    for config in dict.fromkeys(point.config for point in points):
        check_inputs(config)
    for point in points:
        RunFolder(out / point.name, point.config).check_place()


def _list(points: Sequence[Any], plan: Any, store: Any) -> None:
    """What would be done, and how long the chapters took that are known."""
    counts: dict[str, int] = {}
    for task in plan.tasks:
        counts[task.chapter] = counts.get(task.chapter, 0) + 1
    for point in points[:50]:
        show(f"  {point.name}")
    show(f"  and {len(points) - 50} more" if len(points) > 50 else "", end="\n" if len(points) > 50 else "")
    todo = plan.missing(store)
    seconds = store.seconds()
    show(f"{len(points)} points, {len(plan.tasks)} distinct chapters, {len(plan.tasks) - len(todo)} of them known")
    for chapter in sorted(counts):
        missing = sum(task.chapter == chapter for task in todo)
        told = f"about {seconds[chapter]:.0f} s each" if chapter in seconds else "never timed here"
        show(f"  {chapter:<28} {missing:>5} of {counts[chapter]:<5} to do, {told}")
    known = [seconds[task.chapter] for task in todo if task.chapter in seconds]
    if known and len(known) == len(todo):
        show(f"about {sum(known) / 60:.0f} minutes of chapters, to be divided by the number of workers")


class _Teller:
    """A line for everything that is done."""

    def __init__(self, total: int) -> None:
        self.total, self.count = total, 0

    def __call__(self, done: Any) -> None:
        self.count += 1
        head = f"[{self.count}/{self.total}] {done.point:<32} {done.what:<28} {done.status:<7}"
        show(f"{head} {done.seconds:6.1f} s   {done.words.partition(chr(10))[0]}")


def _tables(points: Sequence[Any], out: Path, failed: Any) -> None:
    from qpm_lib.core import write_atomically
    from qpm_lib.runs import read_runs, save_figure, table, to_csv, to_markdown

    there = [out / p.name for p in points if p.name not in failed and (out / p.name / "metrics.json").exists()]
    if not there:
        return
    rows = table(read_runs(there))
    for name, text in (("table.md", to_markdown(rows)), ("table.csv", to_csv(rows))):
        write_atomically(out / name, lambda place, text=text: place.write_text(text, encoding="utf-8"))
    save_figure(rows, out / "table.png")
    show("\n" + to_markdown(rows).split("\n\n**")[0].split("\n\nMean ±")[0])
