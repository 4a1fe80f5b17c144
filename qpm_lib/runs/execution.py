"""Run the chapters headless: papermill, one after the other, resumable."""

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from filelock import FileLock, Timeout

from qpm_lib.core import clear_unfinished
from qpm_lib.runs.chapters import LESSON, Chapter, chain, check_parameters, notebooks_folder
from qpm_lib.runs.executed import source_of, without_paths
from qpm_lib.runs.files import listing, written
from qpm_lib.runs.folder import RunFolder
from qpm_lib.runs.inputs import check_inputs
from qpm_lib.runs.store import ChapterStore
from qpm_lib.runs.up_to_date import chapter_keys, is_clean, is_current
from qpm_lib.runs.watching import ChapterProgress, execute, make_engine, watched

_ENGINE = "qpm"


class ChapterError(RuntimeError):
    """A chapter raised: names the chapter, the cell and the error, and where the executed copy is."""


class ChapterReport(NamedTuple):
    """What became of a chapter: `done`, `skipped` (nothing changed) or `taken` (another run had computed the same)."""

    name: str
    status: str
    seconds: float
    figures: dict[str, Any]


def _execute(
    run: RunFolder,
    chapter: Chapter,
    notebooks: Path,
    parameters: Mapping[str, Any],
    on_progress: Callable[[ChapterProgress], None] | None = None,
) -> None:
    """Execute one notebook into the run folder; a copy that raised is kept under `<name>.failed.ipynb`."""
    import papermill
    from papermill.exceptions import PapermillExecutionError

    target = run.path / "notebooks" / f"{chapter.name}.ipynb"
    target.parent.mkdir(exist_ok=True)
    work, failed = target.with_suffix(".running.ipynb"), target.with_suffix(".failed.ipynb")
    failed.unlink(missing_ok=True)
    values = {"run_folder": str(run.path), "profile": run.config.profile, **parameters}
    lesson = values.pop(LESSON, True)
    run.update_result(chapter.name, figures=None)
    try:
        options = {
            "kernel_name": "python3",
            "language": "python",
            "cwd": str(run.path),
            "progress_bar": False,
            "engine_name": _ENGINE,
            "extra_arguments": ["--log-level=50"],
        }
        place = notebooks / f"{chapter.name}.ipynb"
        with source_of(place, lesson=lesson) as source, watched(chapter.name, on_progress) as tell:
            papermill.engines.papermill_engines.register(_ENGINE, make_engine(tell))
            execute(str(source), str(work), parameters=values, **options)
    except PapermillExecutionError as error:
        work.replace(failed)
        raise ChapterError(
            f"chapter {chapter.name}, cell {error.cell_index}: {error.ename}: {error.evalue}\nexecuted copy: {failed}"
        ) from error
    if run.results[chapter.name].get("figures") is None:
        work.replace(failed)
        raise ChapterError(
            f"chapter {chapter.name} ended without its result: its last cell did not run\nexecuted copy: {failed}"
        )
    without_paths(work, run, notebooks)
    work.replace(target)


def run_chapters(
    run: RunFolder,
    *,
    start: str | None = None,
    only: str | None = None,
    end: str | None = None,
    parameters: Mapping[str, Mapping[str, Any]] | None = None,
    store: ChapterStore | None = None,
    on_start: Callable[[str], None] | None = None,
    on_progress: Callable[[ChapterProgress], None] | None = None,
    on_chapter: Callable[[ChapterReport], None] | None = None,
) -> list[ChapterReport]:
    """Write the settings and execute the chapters of a run; those whose settings, notebook and predecessors did not
    change are skipped.

    Parameters
    ----------
    start : execute from this chapter on even where nothing changed. only : execute just this chapter. end : stop
        after this chapter.
    parameters : notebook parameters by chapter name; `lesson`, one of all chapters, leaves out what only teaches where
        it is false.
    store : where finished chapters of other runs are looked for before one is executed, and kept after it was.
    on_start, on_chapter : called before each chapter with its name, and after it with what became of it. on_progress :
        called twice a second while a chapter runs, from another thread.

    Raises
    ------
    ValueError : for an unknown chapter or parameter, pictures or weights that are not there,
        `only` without what the chapter needs, an end before the start, or a folder that cannot be written.
    ChapterError : when a chapter raises; what finished before stays.
    RuntimeError : when another process is running the same folder.
    """
    notebooks, given = notebooks_folder(), parameters or {}
    _prepare(run, notebooks, given)
    keys, chapters = chapter_keys(run.config, notebooks, given), chain(run.config)
    names, whole = [c.name for c in chapters], chapters
    if end and only:
        raise ValueError("--only runs one chapter: leave --to out")
    if end and names.index(end) < names.index(start or names[0]):
        raise ValueError(f"--to {end[:2]} comes before chapter {str(start)[:2]}: choose a later one")
    forced = {only} if only else set(names[names.index(start) :]) if start else set()
    reports: list[ChapterReport] = []
    try:
        with FileLock(run.path / ".lock", timeout=0):
            clear_unfinished(run.path)
            if only:
                _check_needs(run, chapters, only, keys)
                chapters = [chapters[names.index(only)]]
            elif end:
                chapters = chapters[: names.index(end) + 1]
            run.write_config()
            shelf = _Shelf(store, store.keys(run.config, keys) if store else {})
            for chapter in chapters:
                if on_start:
                    on_start(chapter.name)
                shelf.open = shelf.store is not None and is_clean(run, whole[: names.index(chapter.name)], keys)
                key, values = keys[chapter.name], given.get(chapter.name, {})
                shelf.forced = chapter.name in forced
                reports.append(_run_one(run, chapter, key, notebooks, values, shelf, on_progress))
                if on_chapter:
                    on_chapter(reports[-1])
    except PermissionError as error:
        if run.path not in Path(error.filename or ".").parents:
            raise
        raise run.unwritable(error) from error
    except Timeout:
        words = "is in use by another run: wait for it, or choose another folder with --out"
        raise RuntimeError(f"{run.path} {words}") from None
    return reports


def _check_needs(run: RunFolder, chapters: Sequence[Chapter], only: str, keys: Mapping[str, str]) -> None:
    by_name = {chapter.name: chapter for chapter in chapters}
    missing = [name for name in by_name[only].needs if not is_current(run, by_name[name], keys[name])]
    if missing:
        wanted = f"chapter {only} needs {', '.join(missing)}"
        raise ValueError(f"{wanted}, which is missing or was made with other settings: run without --only")


def _prepare(run: RunFolder, notebooks: Path, parameters: Mapping[str, Mapping[str, Any]]) -> None:
    """Check what can be checked before anything is written, then make the folder and set what the kernels inherit."""
    for name, values in parameters.items():
        check_parameters(notebooks / f"{name}.ipynb", values)
        for own in {"run_folder", "profile"}.intersection(values):
            option = "--out" if own == "run_folder" else "--profile"
            raise ValueError(f"parameter {own!r} of {name} is set by the run itself: use {option}")
    check_inputs(run.config)
    run.check_place()
    if (run.path / "notebooks").resolve() == notebooks.resolve():
        raise ValueError(
            f"run folder {run.path} would overwrite the chapters in {notebooks}: choose another with --out, "
            "for example runs/toy"
        )
    try:
        run.path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise run.unwritable(error) from error
    os.environ.setdefault("TQDM_DISABLE", "1")
    os.environ.setdefault("JUPYTER_PREFER_ENV_PATH", "1")


@dataclass
class _Shelf:
    """The store, with the names of this run's chapters in it.

    It is open for a chapter only where all files before it are as chapters wrote them: results that follow from files
    that somebody changed are nobody else's, and what somebody changed is not overwritten. A chapter that is forced to
    run takes nothing.
    """

    store: ChapterStore | None
    keys: Mapping[str, str]
    open: bool = False
    forced: bool = False

    def take(self, run: RunFolder, name: str) -> dict[str, Any] | None:
        there = self.store and self.open and not self.forced
        return self.store.take(run.path, self.keys[name]) if there else None

    def put(self, run: RunFolder, name: str) -> None:
        if self.store and self.open:
            self.store.put(run.path, self.keys[name], name, run.results[name])


def _run_one(
    run: RunFolder,
    chapter: Chapter,
    key: str,
    notebooks: Path,
    parameters: Mapping[str, Any],
    shelf: _Shelf,
    on_progress: Callable[[ChapterProgress], None] | None,
) -> ChapterReport:
    name = chapter.name
    if not shelf.forced and is_current(run, chapter, key):
        entry = run.results[name]
        return ChapterReport(name, "skipped", entry["seconds"], entry["figures"])
    began, before = time.monotonic(), listing(run.path)
    run.update_result(name, status="running", key=key)
    if entry := shelf.take(run, name):
        run.update_result(name, status="done", **entry)
        return ChapterReport(name, "taken", round(time.monotonic() - began, 1), entry["figures"])
    try:
        _execute(run, chapter, notebooks, parameters, on_progress)
    except BaseException as error:
        status = "interrupted" if isinstance(error, KeyboardInterrupt) else "failed"
        run.update_result(name, status=status, seconds=round(time.monotonic() - began, 1))
        raise
    seconds = round(time.monotonic() - began, 1)
    run.update_result(name, status="done", seconds=seconds, files=written(run.path, before))
    shelf.put(run, name)
    return ChapterReport(name, "done", seconds, run.results[name]["figures"])
