"""Finished chapters by all that their results depend on, shared by the runs of a cache folder."""

import contextlib
import hashlib
import logging
import os
import platform
import shutil
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from qpm_lib.core import (
    RunConfig,
    cache_folder,
    choose_device,
    content_hash,
    file_hash,
    read_object,
    write_atomically,
    write_json,
)
from qpm_lib.data import find_dataset

log = logging.getLogger(__name__)


class ChapterStore:
    """What chapters left in their run folders, a folder for each, named by everything that it depends on.

    That is the keys of this chapter and of all before it, the program, the versions of torch and NumPy, the processor's
    instructions, the device and the number of threads (which changes rounding), and, where pictures or weights are
    files of a user, their fingerprints: what is taken is what the run would have computed.

    Parameters
    ----------
    folder : by default `chapters` in the cache folder. computer : what stands for program, versions and processor in
        the names; by default what `this_computer` says.
    """

    def __init__(self, folder: Path | None = None, computer: str | None = None) -> None:
        self.folder, self.computer = folder or cache_folder() / "chapters", computer

    def keys(self, config: RunConfig, chapters: Mapping[str, str]) -> dict[str, str]:
        """The name of each chapter's folder, from the keys of the chapters of a run in their order."""
        before = [self.computer or this_computer(config.device), _inputs(config)]
        found = {}
        for name, key in chapters.items():
            before.append(key)
            found[name] = content_hash(before)
        return found

    def holds(self, key: str) -> bool:
        """Whether a chapter is known."""
        return (self.folder / key / "card.json").exists()

    def seconds(self) -> dict[str, float]:
        """How long each chapter took that is known, by name: the median."""
        found: dict[str, list[float]] = {}
        for path in self.folder.glob("*/card.json"):
            with contextlib.suppress(ValueError, KeyError, OSError):
                card = read_object(path)
                found.setdefault(card["chapter"], []).append(float(card["seconds"]))
        return {name: float(np.median(times)) for name, times in found.items()}

    def put(self, run: Path, key: str, chapter: str, entry: Mapping[str, Any]) -> None:
        """Keep the files of a finished chapter; where the disk is full or cannot be written, nothing is kept."""
        place = self.folder / key
        card = {"chapter": chapter, **{name: entry[name] for name in ("seconds", "figures", "files")}}
        try:
            for number, name in enumerate(card["files"]):
                write_atomically(place / f"{number}", lambda path, name=name: shutil.copyfile(run / name, path))
            write_json(place / "card.json", card)
        except OSError as error:
            shutil.rmtree(place, ignore_errors=True)
            log.warning("chapter %s is not kept for other runs: %s", chapter, error)

    def take(self, run: Path, key: str) -> dict[str, Any] | None:
        """Put the files of a chapter into a run folder; seconds, figures and files, or None where it is not known.

        Contents are checked against their hashes; what is damaged is thrown away, and the chapter counts as unknown.
        """
        place = self.folder / key
        if not self.holds(key):
            return None
        try:
            card = read_object(place / "card.json")
            names = list(card["files"])
            if any(Path(name).is_absolute() or ".." in Path(name).parts for name in names):
                raise ValueError("it names files outside a run folder")
            damaged = [n for i, n in enumerate(names) if file_hash(place / str(i)) != card["files"][n]]
            if damaged:
                raise ValueError(f"{', '.join(damaged)} changed")
            for number, name in enumerate(names):
                write_atomically(run / name, lambda path, i=number: shutil.copyfile(place / str(i), path))
            with contextlib.suppress(OSError):  # when it was used last; it may be somebody else's
                (place / "card.json").touch()
            return {"seconds": card["seconds"], "figures": card["figures"], "files": dict(card["files"])}
        except (ValueError, KeyError, TypeError, FileNotFoundError) as error:
            log.warning("a kept chapter is damaged (%s): it runs again", error)
            shutil.rmtree(place, ignore_errors=True)
            return None


@cache
def _program() -> str:
    """Hash of the package's own files, and the versions of what computes."""
    package = Path(__file__).resolve().parents[1]
    digest = hashlib.sha256(f"{torch.__version__} {np.__version__} {platform.python_version()}".encode())
    for path in sorted(package.rglob("*")):
        if path.is_file() and path.suffix in (".py", ".safetensors", ".json", ".js", ".html", ".css", ".md"):
            digest.update(path.relative_to(package).as_posix().encode() + path.read_bytes())
    return digest.hexdigest()


def this_computer(device_name: str = "auto", threads: int | None = None) -> str:
    """Program, versions, device, instructions of the processor and number of threads (None: those that a chapter would
    get here), in a hash.
    """
    device = choose_device(device_name)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else torch.backends.cpu.get_cpu_capability()
    count = str(threads or os.environ.get("OMP_NUM_THREADS") or os.cpu_count())
    return content_hash([_program(), platform.machine(), device.type, name, count])


def _inputs(config: RunConfig) -> Sequence[str | None]:
    """Fingerprints of the pictures and of the file of weights, where they are not made by the program."""
    rendered = config.data.kind == "toybirds" and not config.data.root
    dataset = None if rendered else find_dataset(config.data)
    weights = file_hash(Path(config.backbone.weights)) if config.backbone.weights else None
    return [dataset and dataset.fingerprint, weights]
