"""What commands print, and how they read `KEY=VALUE`."""

import sys
from collections.abc import Sequence
from pathlib import Path


def show(text: str = "", end: str = "\n") -> None:
    """Write to standard output at once."""
    sys.stdout.write(text + end)
    sys.stdout.flush()


def printable(name: str) -> str:
    """A file name without the bytes that are no text."""
    return name.encode("utf-8", "backslashreplace").decode()


def show_table(rows: Sequence[Sequence[str]]) -> None:
    """Rows with aligned columns; the first is flush left."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for row in rows:
        cells = [
            cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        ]
        show("  " + "  ".join(cells))


def pairs(texts: Sequence[str], option: str) -> dict[str, str]:
    """Read `KEY=VALUE` texts.

    Raises
    ------
    ValueError : for a text without key or sign, naming the option.
    """
    found = {}
    for text in texts:
        key, sign, value = text.partition("=")
        if not sign or not key:
            raise ValueError(f"{option} {text!r} must look like KEY=VALUE")
        found[key.strip()] = value.strip()
    return found


def check_place(out: Path, looked_at: Sequence[Path], kept: Sequence[Path] = ()) -> None:
    """Check that `--out` can be written to; the folder is made with the first file in it.

    Parameters
    ----------
    looked_at : pictures and folders of pictures; figures must not come to lie among them. kept : folders of a run.

    Raises
    ------
    ValueError : for a place inside a folder of the run or of the pictures, or one that cannot be made.
    """
    above = [out.resolve(), *out.resolve().parents]
    if any(path.resolve() in above for path in kept):
        raise ValueError(f"--out {out} belongs to the run: name another folder")
    if inside := [path for path in looked_at if path.is_dir() and path.resolve() in above]:
        raise ValueError(f"--out {out} lies in {inside[0]}, which is looked at: name another folder")
    missing = [path for path in (out, *out.parents) if not path.exists()]
    try:
        out.mkdir(parents=True, exist_ok=True)
        for path in missing:
            path.rmdir()
    except OSError as error:
        raise ValueError(f"--out {out} cannot be made ({error.strerror}): name a folder") from error
