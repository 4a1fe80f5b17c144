"""Files that are whole or absent: atomic writes, hashes, JSON, and arrays with a card."""

import hashlib
import json
import math
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
from platformdirs import user_cache_path
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

_UNFINISHED = ".part"


def write_atomically(path: Path, write: Callable[[Path], Any]) -> None:
    """Let `write` fill a temporary file beside `path`, then flush it to disk and rename it: a reader sees the old file
    or the whole new one.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=_UNFINISHED)
    os.close(handle)
    temporary = Path(name)
    try:
        write(temporary)
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def clear_unfinished(folder: Path) -> None:
    """Delete what calls of `write_atomically` left anywhere in a folder because their process was killed."""
    for path in folder.rglob(f".*{_UNFINISHED}"):
        path.unlink(missing_ok=True)


def _plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    if hasattr(value, "tolist"):
        return value.tolist()
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"cannot write {type(value).__name__} as JSON")


def to_json(value: Any, indent: int | None = 2) -> str:
    """JSON text of plain values, dataclasses, arrays and paths; NaN is refused, because JSON has none."""
    return json.dumps(value, default=_plain, indent=indent, sort_keys=indent is None, allow_nan=False)


def without_nan(value: Any) -> Any:
    """The same nested value with None for numbers that JSON does not have: NaN and infinities."""
    if isinstance(value, Mapping):
        return {key: without_nan(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [without_nan(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file atomically."""
    text = to_json(value) + "\n"
    write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises
    ------
    ValueError : when the file is damaged; the message names it.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(f"{path} is damaged ({error}): delete it and run again") from error


def read_object(path: Path) -> dict[str, Any]:
    """Read a JSON file that holds one object.

    Raises
    ------
    ValueError : when the file is damaged or holds something else; the message names it.
    """
    found = read_json(path)
    if not isinstance(found, dict):
        raise ValueError(f"{path} is damaged (it holds no object): delete it and run again")
    return found


def save_arrays(folder: Path, name: str, arrays: Mapping[str, np.ndarray], card: Mapping[str, Any]) -> None:
    """Write arrays to `NAME.safetensors` and, last, a card to `NAME.json`: where there is a card, all is there."""
    (folder / f"{name}.json").unlink(missing_ok=True)
    tensors = {key: np.ascontiguousarray(array) for key, array in arrays.items()}
    write_atomically(folder / f"{name}.safetensors", lambda path: save_file(tensors, path))
    write_json(folder / f"{name}.json", card)


@contextmanager
def saved_arrays(
    folder: Path, name: str, *, what: str, chapter: str
) -> Iterator[tuple[dict[str, np.ndarray], dict[str, Any]]]:
    """Arrays and card that `save_arrays` wrote; an error in the block, which takes them apart, means damage, too.

    Parameters
    ----------
    what : they are, and chapter : that makes them, for messages.

    Raises
    ------
    ValueError : when there are none, or they are damaged.
    """
    if not (folder / f"{name}.json").exists():
        raise ValueError(f"{folder} holds no {what}: run chapter {chapter} first")
    try:
        yield load_file(folder / f"{name}.safetensors"), read_object(folder / f"{name}.json")
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{folder} is damaged ({error}): run chapter {chapter} again") from error


def content_hash(value: Any) -> str:
    """Sixteen hexadecimal digits that name a value: equal values, equal hash."""
    return text_hash(to_json(value, indent=None))


def text_hash(text: str) -> str:
    """Sixteen hexadecimal digits of the SHA-256 of a text."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def file_hash(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def cache_folder() -> Path:
    """Where rendered data and features are kept: `$QPM_CACHE`, or the user's cache folder."""
    return Path(os.environ.get("QPM_CACHE") or user_cache_path("qpm"))


def make_cache_folder() -> Path:
    """The cache folder, made where there is none and tried with a file.

    Raises
    ------
    OSError : when it cannot be written.
    """
    folder = cache_folder()
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder):
        return folder
