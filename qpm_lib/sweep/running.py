"""A sweep on its way: chapters as tasks of a scheduler, and a whole run folder with its report for every point."""

import os
from collections.abc import Callable, Mapping, Sequence
from contextvars import Context
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from qpm_lib.core import RunConfig, cache_folder, choose_device
from qpm_lib.report import build_report
from qpm_lib.runs import ChapterError, ChapterReport, ChapterStore, RunFolder, run_chapters
from qpm_lib.sweep.cluster import Workers, import_distributed
from qpm_lib.sweep.plan import Plan, last_chapter
from qpm_lib.sweep.points import Point

REPORT = "report"


class Done(NamedTuple):
    """A chapter, or the report of a point, that has finished or failed.

    Attributes
    ----------
    point : name of the point in whose folder it was made. what : name of the chapter, or `report`. status : `done`,
        `taken`, `skipped` or `failed`. words : key figures, or the error.
    """

    point: str
    what: str
    status: str
    seconds: float
    words: str


@dataclass(frozen=True)
class _Job:
    """All that a worker needs."""

    folder: str
    config: RunConfig
    chapter: str | None
    parameters: Mapping[str, Mapping[str, Any]]
    cache: str
    store: str
    computer: str | None


def run_sweep(
    points: Sequence[Point],
    plan: Plan,
    out: Path,
    workers: Workers,
    store: ChapterStore,
    *,
    end: str | None = None,
    parameters: Mapping[str, Mapping[str, Any]] | None = None,
    on_done: Callable[[Done], None] | None = None,
) -> dict[str, str]:
    """Execute every chapter that no run has finished yet, each once, and give every point its run folder and report.

    A point whose chapter raises fails alone. A worker that dies costs the chapter that it was at, which another one
    starts again. Interrupted, or left by its scheduler, the same call goes on.

    Parameters
    ----------
    plan : of these points, with this store. end : the last chapter. on_done : called with everything that finishes.

    Returns
    -------
    The error of each point that failed, by its name.

    Raises
    ------
    RuntimeError : when the scheduler is lost.
    """
    distributed, client = import_distributed(), workers.client

    def job(point: Point, chapter: str | None) -> _Job:
        place = str((out / point.name).resolve())
        kept = str(cache_folder().resolve()), str(store.folder.resolve()), store.computer
        return _Job(place, point.config, chapter, parameters or {}, *kept)

    told = _submit(client, plan, points, store, job, end)
    # A task that failed, and that somebody still holds, is not done again when it is asked for again.
    client.retry([future for future in told if future.status == "error"])
    failed: dict[str, str] = {}
    said: set[str] = set()
    try:
        for future in distributed.as_completed(list(told)):
            name, what = told[future]
            if future.status == "finished":
                done = Done(name, what, *future.result())
            elif future.status == "error":
                words = _error(future, what)
                done = Done(name, what, "failed", 0.0, words)
                failed.update({name: words} if what == REPORT else {})
                if words in said:
                    continue
                said.add(words)
            else:
                raise RuntimeError("the scheduler was lost: run the same command again to go on")
            if on_done:
                on_done(done)
    except (distributed.comm.CommClosedError, distributed.CancelledError) as error:
        raise RuntimeError("the scheduler was lost: run the same command again to go on") from error
    except KeyboardInterrupt:
        client.cancel(list(told), force=True)
        raise
    return failed


def _submit(
    client: Any,
    plan: Plan,
    points: Sequence[Point],
    store: ChapterStore,
    job: Callable[[Point, str | None], _Job],
    end: str | None,
) -> dict[Any, tuple[str, str]]:
    """A task for every chapter that is not known, after the one before it, and one for every point."""
    told: dict[Any, tuple[str, str]] = {}
    chapters: dict[str, Any] = {}
    for task in plan.missing(store):
        before = chapters.get(task.after)
        name = f"{task.chapter}-{task.key}"
        chapters[task.key] = client.submit(_chapter, job(points[task.point], task.chapter), before, key=name)
        told[chapters[task.key]] = points[task.point].name, task.chapter
    for number, point in enumerate(points):
        last, label = chapters.get(plan.last[number]), f"{REPORT}-{point.name}-{plan.last[number]}"
        told[client.submit(_finish, job(point, last_chapter(point.config, end)), last, key=label)] = point.name, REPORT
    return told


def _error(future: Any, what: str) -> str:
    from distributed import KilledWorker

    error = future.exception()
    if isinstance(error, KilledWorker):
        return f"{what}: one worker after another died in it (too little memory?)"
    return str(error) if isinstance(error, ChapterError | ValueError | RuntimeError) else f"{what}: {error!r}"


def _run(job: _Job) -> tuple[RunFolder, list[ChapterReport]]:
    """On a worker: the chapters of a point up to one, as far as they are not known."""
    os.environ["QPM_CACHE"] = job.cache
    choose_device(job.config.device)
    run, store = RunFolder(Path(job.folder), job.config), ChapterStore(Path(job.store), job.computer)
    # The context of a task is a copy of its worker's, in which the event loop of another thread may be noted.
    return run, Context().run(run_chapters, run, end=job.chapter, parameters=job.parameters, store=store)


def _chapter(job: _Job, _before: object) -> tuple[str, float, str]:
    """On a worker: a chapter that is not known yet, and what came of it."""
    report = _run(job)[1][-1]
    return report.status, report.seconds, ", ".join(f"{k.replace('_', ' ')} {v}" for k, v in report.figures.items())


def _finish(job: _Job, _last: object) -> tuple[str, float, str]:
    """On a worker: all chapters of a point from the store, and its report."""
    run, reports = _run(job)
    build_report(run, job.parameters)
    statuses = [report.status for report in reports]
    return "done", 0.0, ", ".join(f"{statuses.count(s)} {s}" for s in dict.fromkeys(statuses))
