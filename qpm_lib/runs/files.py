"""Which files a chapter left in a run folder, and whether they are still what it wrote."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from qpm_lib.core import file_hash

_OWN = ("config.json", "result.json", ".lock")  # of the runner


def may_change(name: str) -> bool:
    """Whether people change a file: they name features, and open executed copies of chapters."""
    return name == "model/model.json" or name.endswith(".ipynb")


def listing(folder: Path) -> dict[str, tuple[int, int, int]]:
    """Files of a run folder that chapters may write, with what changes when one is written anew."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if (
            path.is_file()
            and name not in _OWN
            and not name.startswith(("report/", "compared/"))
            and not path.name.startswith(".")
        ):
            status = path.stat()
            found[name] = (status.st_ino, status.st_mtime_ns, status.st_size)
    return found


def written(folder: Path, before: Mapping[str, tuple[int, int, int]]) -> dict[str, str]:
    """Files that are new or other than in an earlier `listing`, with the hash of their contents."""
    after = listing(folder)
    return {name: file_hash(folder / name) for name, status in after.items() if before.get(name) != status}


def owners(results: Mapping[str, Any], names: Sequence[str]) -> dict[str, tuple[str, str]]:
    """For each file the last of these chapters that wrote it, and the hash that it had then."""
    found: dict[str, tuple[str, str]] = {}
    for name in names:
        entry = results.get(name, {})
        if entry.get("status") == "done":
            found |= {file: (name, digest) for file, digest in entry.get("files", {}).items()}
    return found


def is_unchanged(folder: Path, name: str, digest: str, *, edited: bool = False) -> bool:
    """Whether a file is there with these contents; one that people may change only has to be there, if so wanted."""
    path = folder / name
    try:
        return path.is_file() if edited and may_change(name) else file_hash(path) == digest
    except OSError:
        return False
