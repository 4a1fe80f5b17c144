"""Whether results belong to the settings, notebooks and predecessors of now."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from qpm_lib.core import VERSION, RunConfig, content_hash, read_json, stage_key
from qpm_lib.runs.chapters import Chapter, chain, notebooks_folder
from qpm_lib.runs.folder import RunFolder


def chapter_keys(config: RunConfig, folder: Path, parameters: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """For every chapter a hash of all that its result depends on."""
    keys: dict[str, str] = {}
    for chapter in chain(config):
        source = hashlib.sha256((folder / f"{chapter.name}.ipynb").read_bytes()).hexdigest()
        parts = [
            stage_key(config, chapter.stage),
            source,
            VERSION,
            dict(parameters.get(chapter.name, {})),
            [keys[n] for n in chapter.needs],
        ]
        keys[chapter.name] = content_hash(parts)
    return keys


def is_whole(path: Path) -> bool:
    """Whether a file is there and can be read as what its name says: a JSON object, a notebook, or safetensors."""
    try:
        if path.suffix == ".safetensors":
            with safe_open(path, "pt"):
                return True
        return isinstance(read_json(path), dict)
    except (OSError, ValueError, SafetensorError):
        return False


def is_current(run: RunFolder, chapter: Chapter, key: str) -> bool:
    """Whether the files of a chapter are whole and were made with this key."""
    entry = run.results.get(chapter.name, {})
    files = [run.path / name for name in chapter.leaves] + [run.path / "notebooks" / f"{chapter.name}.ipynb"]
    if entry.get("status") != "done" or entry.get("key") != key or not all(is_whole(f) for f in files):
        return False
    makers = {read_json(run.path / name).get("made_by") for name in chapter.leaves if name.endswith(".json")}
    return makers <= {None, stage_key(run.config, chapter.stage)}  # two methods leave the same files


def current_chapters(run: RunFolder, parameters: Mapping[str, Mapping[str, Any]] | None = None) -> set[str]:
    """Names of the chapters whose results are whole and belong to the settings, notebooks and predecessors of now."""
    keys, current = chapter_keys(run.config, notebooks_folder(), parameters or {}), set()
    for chapter in chain(run.config):
        if current.issuperset(chapter.needs) and is_current(run, chapter, keys[chapter.name]):
            current.add(chapter.name)
    return current
