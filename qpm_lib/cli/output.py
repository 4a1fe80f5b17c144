"""What commands print, and how they read `KEY=VALUE`."""

import sys
from collections.abc import Sequence


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
