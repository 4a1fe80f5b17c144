"""What is executed of a chapter, and the executed copy as it can be handed on: without paths of the machine."""

import re
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import nbformat

from qpm_lib.core import cache_folder
from qpm_lib.runs.chapters import LESSON
from qpm_lib.runs.folder import RunFolder


@contextmanager
def source_of(notebook: Path, *, lesson: bool) -> Iterator[Path]:
    """A notebook to execute: the chapter, or a copy without the cells that only teach."""
    if lesson:
        yield notebook
        return
    book = nbformat.read(notebook, as_version=4)
    book.cells = [cell for cell in book.cells if LESSON not in cell.metadata.get("tags", [])]
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / notebook.name
        nbformat.write(book, copy)
        yield copy


def without_paths(copy: Path, run: RunFolder, notebooks: Path) -> None:
    """Write names in the place of folders into an executed copy: in cells, in what they printed, in its metadata.

    The run folder becomes `..`, which it is as seen from the copy, so that the copy can be executed again where it
    lies. The cache, the data, the environment and the home folder become words in angle brackets. Pictures are left.
    """
    names = {run.path: "..", notebooks: "notebooks", cache_folder(): "<cache>", Path(sys.prefix): "<environment>"}
    if root := run.config.data.root:
        names[Path(root)] = "<data>"
    names |= {notebooks.parent: "<project>", Path.home(): "<home>"}
    known = {str(p): name for place, name in names.items() for p in (place, place.absolute(), place.resolve())}
    known = {place: name for place, name in known.items() if Path(place).is_absolute() and len(Path(place).parts) > 1}
    longest = sorted(known, key=len, reverse=True)
    pattern = re.compile("(?:" + "|".join(map(re.escape, longest)) + r")(?![\w.-])")
    book = nbformat.read(copy, as_version=4)
    nbformat.write(_named(book, pattern, known), copy)


def _named(value: Any, pattern: re.Pattern[str], known: Mapping[str, str]) -> Any:
    """A part of a notebook with the names in the place of folders."""
    if isinstance(value, str):
        return pattern.sub(lambda found: known[found[0]], value)
    if isinstance(value, list):
        return [_named(part, pattern, known) for part in value]
    if isinstance(value, dict):
        for key, part in value.items():
            value[key] = part if key.startswith("image/") else _named(part, pattern, known)
    return value
