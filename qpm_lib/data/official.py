"""What the readers of official data sets share: finding the folder, and names that stay inside it."""

from collections.abc import Sequence
from pathlib import Path, PureWindowsPath


def leads_out(name: str) -> bool:
    """Whether a name is absolute or climbs with `..`, read by the rules of every system (`C:x` and a backslash count
    too).
    """
    path = PureWindowsPath(name)
    return bool(path.anchor) or ".." in path.parts


def check_names(source: Path, names: Sequence[str]) -> None:
    """Refuse names of pictures that are empty, lead out of the data set's folder, or come twice.

    Raises
    ------
    ValueError : with `source`, the file that lists them, and the first such name.
    """
    for name in names:
        if not name.strip() or leads_out(name):
            raise ValueError(f"{source} names {name!r}, which lies outside the folder: take the official file")
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise ValueError(f"{source} names {name!r} twice: every picture must be listed once")
        seen.add(name)


def data_folder(root: Path, name: str, marker: str, layout: str) -> Path:
    """`root` itself, or the sub-folder `name` in it: whichever holds `marker`.

    Raises
    ------
    ValueError : when neither does; the message ends with `layout`, what is expected and how to get it.
    """
    for folder in (root, root / name):
        if (folder / marker).exists():
            return folder
    raise ValueError(f"data.root (={str(root)!r}) holds no {marker}, and no {name}/{marker}: {layout}")
