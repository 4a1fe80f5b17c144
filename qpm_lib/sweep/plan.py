"""What a sweep has to compute: every distinct chapter once, after the chapter that it goes on from."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from qpm_lib.core import RunConfig
from qpm_lib.runs import ChapterStore, chain, chapter_keys, notebooks_folder
from qpm_lib.sweep.points import Point


class Task(NamedTuple):
    """A chapter, executed in the folder of the first point that needs it.

    Attributes
    ----------
    key : its name in the store; equal for all points that share it. point : number of that first point. chapter : its
        name. after : key of the chapter before it.
    """

    key: str
    point: int
    chapter: str
    after: str | None


class Plan(NamedTuple):
    """Tasks in an order in which they can be done, and the chapter each point ends with."""

    tasks: list[Task]
    last: list[str]

    def missing(self, store: ChapterStore) -> list[Task]:
        """Tasks that no run has finished yet."""
        return [task for task in self.tasks if not store.holds(task.key)]


def last_chapter(config: RunConfig, end: str | None) -> str:
    """The chapter that a run ends with; the baselines have another chapter of the same number as QPM."""
    names = [chapter.name for chapter in chain(config)]
    return next(name for name in names if name[:2] == end[:2]) if end else names[-1]


def plan_sweep(
    points: Sequence[Point],
    store: ChapterStore,
    *,
    end: str | None = None,
    parameters: Mapping[str, Mapping[str, Any]] | None = None,
) -> Plan:
    """Merge the chapters of all points by what their results depend on."""
    folder, tasks, last = notebooks_folder(), {}, []
    for number, point in enumerate(points):
        names = [chapter.name for chapter in chain(point.config)]
        names = names[: names.index(last_chapter(point.config, end)) + 1]
        keys = store.keys(point.config, chapter_keys(point.config, folder, parameters or {}))
        before = None
        for name in names:
            if keys[name] not in tasks:
                tasks[keys[name]] = Task(keys[name], number, name, before)
            before = keys[name]
        last.append(before)
    return Plan(list(tasks.values()), last)
