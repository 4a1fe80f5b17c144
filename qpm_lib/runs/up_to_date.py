"""Whether results belong to the settings, notebooks and predecessors of now."""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from qpm_lib.core import VERSION, RunConfig, content_hash, file_hash, read_json, stage_key
from qpm_lib.runs.chapters import Chapter, chain, notebooks_folder
from qpm_lib.runs.files import is_unchanged, owners
from qpm_lib.runs.folder import RunFolder


@lru_cache(maxsize=100)
def _source_hash(path: Path, _modified: int) -> str:
    return file_hash(path)


def chapter_keys(config: RunConfig, folder: Path, parameters: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """For every chapter a hash of all that its result depends on."""
    keys: dict[str, str] = {}
    for chapter in chain(config):
        notebook = folder / f"{chapter.name}.ipynb"
        parts = [
            stage_key(config, chapter.stage),
            _source_hash(notebook, notebook.stat().st_mtime_ns),
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
    """Whether the files of a chapter are whole, are those that it wrote, and were made with this key.

    Names that people gave to features, and executed copies that they opened, are no reason to run a chapter again.
    """
    results = run.results
    entry = results.get(chapter.name, {})
    files = [run.path / name for name in chapter.leaves] + [run.path / "notebooks" / f"{chapter.name}.ipynb"]
    if entry.get("status") != "done" or entry.get("key") != key or not all(is_whole(f) for f in files):
        return False
    last = owners(results, [c.name for c in chain(run.config)])
    own = {name: digest for name, (owner, digest) in last.items() if owner == chapter.name}
    if not all(is_unchanged(run.path, name, digest, edited=True) for name, digest in own.items()):
        return False
    makers = {read_json(run.path / name).get("made_by") for name in chapter.leaves if name.endswith(".json")}
    return makers <= {None, stage_key(run.config, chapter.stage)}  # two methods leave the same files


def is_clean(run: RunFolder, chapters: Sequence[Chapter], keys: Mapping[str, str]) -> bool:
    """Whether all files of some chapters are exactly what these chapters wrote with their present keys."""
    results, names = run.results, [c.name for c in chapters]
    entries = [results.get(name, {}) for name in names]
    if not all(e.get("status") == "done" and "files" in e for e in entries):
        return False
    if any(entry.get("key") != keys[name] for name, entry in zip(names, entries, strict=True)):
        return False
    files = {file: digest for file, (_, digest) in owners(results, names).items() if not file.endswith(".ipynb")}
    return all(is_unchanged(run.path, file, digest) for file, digest in files.items())


def current_chapters(run: RunFolder, parameters: Mapping[str, Mapping[str, Any]] | None = None) -> set[str]:
    """Names of the chapters whose results are whole and belong to the settings, notebooks and predecessors of now."""
    keys, current = chapter_keys(run.config, notebooks_folder(), parameters or {}), set()
    for chapter in chain(run.config):
        if current.issuperset(chapter.needs) and is_current(run, chapter, keys[chapter.name]):
            current.add(chapter.name)
    return current
