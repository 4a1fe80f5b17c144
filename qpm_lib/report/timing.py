"""Where a run spent its time: chapters, and the cells that took most of it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from qpm_lib.report.index import chapter_title
from qpm_lib.report.pages import Page, render
from qpm_lib.runs import LESSON, RunFolder, is_whole

_LEAST, _MOST = 0.05, 4  # share of a chapter from which a cell is named, and how many


class Cell(NamedTuple):
    """A cell that took long: the heading above it, its first line, and its seconds."""

    heading: str
    line: str
    seconds: float


class ChapterTime(NamedTuple):
    """Seconds of a chapter in all (starting its kernel included), of its cells that only teach, and of its longest
    cells.
    """

    name: str
    title: str
    seconds: float
    lesson: float
    cells: list[Cell]


def timing_page(run: RunFolder, chapters: Sequence[str]) -> Page | None:
    """Chapters by the time of their last execution, as papermill noted it; None where none was executed."""
    times = [found for name in chapters if (found := read_times(run.path / "notebooks" / f"{name}.ipynb"))]
    if not times:
        return None
    total, lesson = sum(one.seconds for one in times), sum(one.lesson for one in times)
    return Page("Time", render("timing.html", times=times, total=total, lesson=lesson))


def read_times(notebook: Path) -> ChapterTime | None:
    """Times of an executed copy; None where there is none, or it does not hold them."""
    import nbformat

    if not is_whole(notebook):
        return None
    book, heading, cells, lesson = nbformat.read(notebook, as_version=4), "", [], 0.0
    for cell in book.cells:
        if cell.cell_type == "markdown":
            headings = [line.lstrip("#").strip() for line in cell.source.splitlines() if line.startswith("#")]
            heading = headings[-1] if headings else heading
        elif seconds := _seconds(cell.metadata):
            lines = [line for line in cell.source.splitlines() if line.strip() and not line.lstrip().startswith("#")]
            cells.append(Cell(heading, lines[0] if lines else "", seconds))
            lesson += seconds if LESSON in cell.metadata.get("tags", ()) else 0.0
    whole = _seconds(book.metadata)
    if not whole:
        return None
    longest = sorted((c for c in cells if c.seconds >= _LEAST * whole), key=lambda c: -c.seconds)[:_MOST]
    return ChapterTime(notebook.stem, chapter_title(notebook.stem), whole, lesson, longest)


def _seconds(metadata: Any) -> float:
    """What papermill noted, or 0."""
    return float(metadata.get("papermill", {}).get("duration") or 0.0)
