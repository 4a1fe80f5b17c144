"""The one progress bar: on by default, off with `TQDM_DISABLE=1`; a process that waits for this one can read it."""

import json
import os
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TypeVar

from tqdm.auto import tqdm

T = TypeVar("T")
PROGRESS_FILE = "QPM_PROGRESS_FILE"
_EVERY = 0.4


def progress(items: Iterable[T], description: str, *, total: int | None = None, initial: int = 0) -> Iterable[T]:
    """Iterate with a bar that leaves no trace when it is done.

    Where the variable `QPM_PROGRESS_FILE` of the environment names a file, how far it is is also written there.
    """
    off = os.environ.get("TQDM_DISABLE", "").lower() not in ("", "0", "false")
    bar = tqdm(items, desc=description, total=total, initial=initial, leave=False, disable=off)
    place = os.environ.get(PROGRESS_FILE)
    if not place:
        return bar
    if total is None and hasattr(items, "__len__"):
        total = len(items)
    return _written(bar, Path(place), description, total, initial)


def _written(bar: Iterable[T], place: Path, what: str, total: int | None, initial: int) -> Iterator[T]:
    """Yield the items and write how many are done, at most every 0.4 s."""
    began, last = time.monotonic(), -_EVERY
    for number, item in enumerate(bar):
        now = time.monotonic() - began
        if now - last >= _EVERY:
            last, rate = now, number / now if number else None
            left = (total - initial - number) / rate if rate and total else None
            _write(place, [what, initial + number, total, left])
        yield item
    _write(place, None)


def _write(place: Path, value: object) -> None:
    try:
        temporary = place.with_suffix(f".{os.getpid()}")
        temporary.write_text(json.dumps(value), encoding="utf-8")
        temporary.replace(place)
    except OSError:  # whoever waited is gone
        return


def read_progress(place: Path) -> tuple[str, int, int | None, float | None] | None:
    """What the loop of another process wrote: description, done, total, seconds left; None where no loop runs."""
    try:
        what, done, total, left = json.loads(place.read_text(encoding="utf-8"))
    except (OSError, ValueError, TypeError):
        return None
    return str(what), int(done), total, left
