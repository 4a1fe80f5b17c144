"""Execution of a notebook, and how far it is: the cell that is executed, and the loop inside it."""

import logging
import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from qpm_lib.core import PROGRESS_FILE, read_progress

log = logging.getLogger(__name__)
_EVERY, _STARTS = 0.5, 3


def execute(source: str, target: str, **options: Any) -> None:
    """papermill's `execute_notebook`; a kernel that died before its first word is started again, up to twice.

    Two kernels that start at the same moment can be given the same port, and one of them dies of it; no cell has been
    executed then.
    """
    import papermill

    for left in reversed(range(_STARTS)):
        try:
            papermill.execute_notebook(source, target, **options)
            return
        except RuntimeError as error:
            if not left or "before replying to kernel_info" not in str(error):
                raise
            log.warning("the kernel of %s did not start (%s): trying again", Path(source).name, error)


class ChapterProgress(NamedTuple):
    """How far a chapter is.

    Attributes
    ----------
    chapter : its name. seconds : since it began. cell, cells : the code cell at work, from 1, and how many there are.
    loop : what the loop in this cell does, how much is done, how much there is (None where that is not known), and how
        many seconds are left; None where no loop runs.
    """

    chapter: str
    seconds: float
    cell: int
    cells: int
    loop: tuple[str, int, int | None, float | None] | None

    def __str__(self) -> str:
        """In one line."""
        text = f"cell {self.cell} of {self.cells}" if self.cell else "starting"
        if self.loop:
            what, done, total, left = self.loop
            text += f": {what} {done}" + (f" of {total}" if total else "")
            text += "" if left is None else f", {clock(left)} left"
        return f"{text} ({clock(self.seconds)})"


def clock(seconds: float) -> str:
    """Minutes and seconds, or hours, minutes and seconds."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"


@contextmanager
def watched(
    chapter: str, on_progress: Callable[[ChapterProgress], None] | None
) -> Iterator[Callable[[int, int], None]]:
    """Call `on_progress` twice a second while a chapter runs; gives a function that is to be told of each cell."""
    if on_progress is None:
        yield lambda cell, cells: None
        return
    began, where, over = time.monotonic(), [0, 0], threading.Event()
    with tempfile.TemporaryDirectory(prefix="qpm-progress-") as folder:
        place = Path(folder) / "loop.json"

        def look() -> None:
            while not over.wait(_EVERY):
                on_progress(ChapterProgress(chapter, time.monotonic() - began, *where, read_progress(place)))

        def tell(cell: int, cells: int) -> None:
            where[:] = cell, cells
            place.unlink(missing_ok=True)

        before = os.environ.get(PROGRESS_FILE)
        os.environ[PROGRESS_FILE] = str(place)
        thread = threading.Thread(target=look, daemon=True)
        thread.start()
        try:
            yield tell
        finally:
            over.set()
            thread.join()
            os.environ.pop(PROGRESS_FILE)
            if before is not None:
                os.environ[PROGRESS_FILE] = before


def make_engine(tell: Callable[[int, int], None]) -> Any:
    """An engine of papermill that says which code cell it begins."""
    from papermill.engines import NBClientEngine

    class Telling(NBClientEngine):
        @classmethod
        def execute_managed_notebook(cls, nb_man: Any, kernel_name: str, **options: Any) -> Any:
            code = [index for index, cell in enumerate(nb_man.nb.cells) if cell.cell_type == "code"]
            start = nb_man.cell_start

            def started(cell: Any, cell_index: int | None = None, **rest: Any) -> Any:
                if cell_index in code:
                    tell(code.index(cell_index) + 1, len(code))
                return start(cell, cell_index, **rest)

            nb_man.cell_start = started
            return super().execute_managed_notebook(nb_man, kernel_name, **options)

    return Telling
