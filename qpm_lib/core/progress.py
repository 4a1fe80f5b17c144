"""The one progress bar: on by default, off with `TQDM_DISABLE=1`."""

import os
from collections.abc import Iterable
from typing import TypeVar

from tqdm.auto import tqdm

T = TypeVar("T")


def progress(items: Iterable[T], description: str, *, total: int | None = None, initial: int = 0) -> Iterable[T]:
    """Iterate with a bar that leaves no trace when it is done."""
    off = os.environ.get("TQDM_DISABLE", "").lower() not in ("", "0", "false")
    return tqdm(items, desc=description, total=total, initial=initial, leave=False, disable=off)
