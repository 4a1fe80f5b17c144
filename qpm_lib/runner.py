"""Run the chapters headless: papermill, one after the other, resumable, with what depends on what."""

import hashlib
import os
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from filelock import FileLock, Timeout
from safetensors import SafetensorError, safe_open

import qpm_lib
from qpm_lib.artifacts import content_hash, read_json
from qpm_lib.config import RunConfig, stage_key
from qpm_lib.runs import RunFolder


class Chapter(NamedTuple):
    """A notebook of the chain: the stage whose settings it depends on, the chapters before it, and the files it must leave."""

    name: str
    stage: str
    needs: tuple[str, ...] = ()
    leaves: tuple[str, ...] = ()


CHAPTERS = (
    Chapter("01_frozen_features", "features"),
    Chapter("02_dense_model", "dense", ("01_frozen_features",), ("dense/model.json", "dense/model.safetensors")),
    Chapter("03_quadratic_programme", "selection", ("02_dense_model",), ("selection.json",)),
    Chapter("04_fine_tuning", "model", ("03_quadratic_programme",), ("model/model.json", "model/model.safetensors")),
    Chapter("05_explanations", "model", ("04_fine_tuning",)),
    Chapter("06_evaluation", "model", ("04_fine_tuning",), ("metrics.json",)),
    Chapter("07_saliency_explorer", "model", ("04_fine_tuning",), ("snapshot/snapshot.json", "snapshot/snapshot.safetensors")),
)
SPARSE = CHAPTERS[2]._replace(name="03_sparse_linear_model")


def chain(config: RunConfig) -> tuple[Chapter, ...]:
    """The chapters of a run; the baselines have their own chapter 3."""
    if config.selection.method == "qpm":
        return CHAPTERS
    names = {CHAPTERS[2].name: SPARSE.name}
    return tuple(c._replace(name=names.get(c.name, c.name), needs=tuple(names.get(n, n) for n in c.needs)) for c in CHAPTERS)


class ChapterError(RuntimeError):
    """A chapter raised: names the chapter, the cell and the error, and where the executed copy is."""


class ChapterReport(NamedTuple):
    """What became of a chapter: `done` or `skipped`."""

    name: str
    status: str
    seconds: float
    figures: dict[str, Any]


def notebooks_folder() -> Path:
    """Where the chapters are: beside the package in a checkout, or in the current folder.

    Raises
    ------
    ValueError : when neither holds them.
    """
    for folder in (Path(__file__).resolve().parent.parent / "notebooks", Path.cwd() / "notebooks"):
        if (folder / f"{CHAPTERS[0].name}.ipynb").exists():
            return folder
    raise ValueError("the notebooks were not found: run qpm in a checkout of the project")


def find_chapter(text: str, chapters: Sequence[Chapter] = CHAPTERS) -> str:
    """Name of the chapter that starts with `text`, such as `03`.

    Raises
    ------
    ValueError : when there is none.
    """
    matches = [c.name for c in chapters if c.name == text or c.name.startswith(f"{text}_")]
    if len(matches) != 1:
        raise ValueError(f"unknown chapter {text!r}: choose from {', '.join(c.name[:2] for c in chapters)}")
    return matches[0]


def check_parameters(notebook: Path, parameters: Collection[str]) -> None:
    """Refuse parameters that a notebook does not declare; papermill would only warn.

    Raises
    ------
    ValueError : naming the unknown parameter and the known ones.
    """
    from papermill import inspect_notebook

    known = inspect_notebook(str(notebook))
    for name in parameters:
        if name not in known:
            raise ValueError(f"{notebook.stem} has no parameter {name!r}: it has {', '.join(known)}")


def _keys(config: RunConfig, folder: Path, parameters: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """For every chapter a hash of all that its result depends on."""
    keys: dict[str, str] = {}
    for chapter in chain(config):
        source = hashlib.sha256((folder / f"{chapter.name}.ipynb").read_bytes()).hexdigest()
        parts = [
            stage_key(config, chapter.stage),
            source,
            qpm_lib.__version__,
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


def _is_current(run: RunFolder, chapter: Chapter, key: str) -> bool:
    entry = run.results.get(chapter.name, {})
    files = [run.path / name for name in chapter.leaves] + [run.path / "notebooks" / f"{chapter.name}.ipynb"]
    if entry.get("status") != "done" or entry.get("key") != key or not all(is_whole(f) for f in files):
        return False
    makers = {read_json(run.path / name).get("made_by") for name in chapter.leaves if name.endswith(".json")}
    return makers <= {None, stage_key(run.config, chapter.stage)}  # two methods leave the same files


def current_chapters(run: RunFolder, parameters: Mapping[str, Mapping[str, Any]] | None = None) -> set[str]:
    """Names of the chapters whose results are whole and belong to the settings, notebooks and predecessors of now."""
    keys, current = _keys(run.config, notebooks_folder(), parameters or {}), set()
    for chapter in chain(run.config):
        if current.issuperset(chapter.needs) and _is_current(run, chapter, keys[chapter.name]):
            current.add(chapter.name)
    return current


def _execute(run: RunFolder, chapter: Chapter, notebooks: Path, parameters: Mapping[str, Any]) -> None:
    """Execute one notebook into the run folder; a copy that raised is kept under `<name>.failed.ipynb`."""
    import papermill
    from papermill.exceptions import PapermillExecutionError

    target = run.path / "notebooks" / f"{chapter.name}.ipynb"
    target.parent.mkdir(exist_ok=True)
    work, failed = target.with_suffix(".running.ipynb"), target.with_suffix(".failed.ipynb")
    failed.unlink(missing_ok=True)
    values = {"run_folder": str(run.path), "profile": run.config.profile, **parameters}
    run.update_result(chapter.name, figures=None)
    try:
        options = {
            "kernel_name": "python3",
            "language": "python",
            "cwd": str(notebooks),
            "progress_bar": False,
            "extra_arguments": ["--log-level=50"],
        }
        papermill.execute_notebook(str(notebooks / f"{chapter.name}.ipynb"), str(work), parameters=values, **options)
    except PapermillExecutionError as error:
        work.replace(failed)
        raise ChapterError(
            f"chapter {chapter.name}, cell {error.cell_index}: {error.ename}: {error.evalue}\nexecuted copy: {failed}"
        ) from error
    if run.results[chapter.name].get("figures") is None:
        work.replace(failed)
        raise ChapterError(f"chapter {chapter.name} ended without its result: its last cell did not run\nexecuted copy: {failed}")
    work.replace(target)


def run_chapters(
    run: RunFolder,
    *,
    start: str | None = None,
    only: str | None = None,
    parameters: Mapping[str, Mapping[str, Any]] | None = None,
    on_start: Callable[[str], None] | None = None,
    on_chapter: Callable[[ChapterReport], None] | None = None,
) -> list[ChapterReport]:
    """Write the settings and execute the chapters of a run; those whose settings, notebook and predecessors did not change are skipped.

    Parameters
    ----------
    start : execute from this chapter on even where nothing changed. only : execute just this chapter.
    parameters : notebook parameters by chapter name.
    on_start, on_chapter : called before each chapter with its name, and after it with what became of it.

    Raises
    ------
    ValueError : for an unknown chapter or parameter, or `only` without what the chapter needs.
    ChapterError : when a chapter raises; what finished before stays.
    RuntimeError : when another process is running the same folder.
    """
    notebooks, given = notebooks_folder(), parameters or {}
    _prepare(run, notebooks, given)
    keys = _keys(run.config, notebooks, given)
    all_chapters = chain(run.config)
    names = [c.name for c in all_chapters]
    forced = {only} if only else set(names[names.index(start) :]) if start else set()
    reports: list[ChapterReport] = []
    try:
        with FileLock(run.path / ".lock", timeout=0):
            chapters = [all_chapters[names.index(only)]] if only else all_chapters
            missing = [n for n in chapters[0].needs if only and not _is_current(run, all_chapters[names.index(n)], keys[n])]
            if missing:
                wanted = f"chapter {only} needs {', '.join(missing)}"
                raise ValueError(f"{wanted}, which is missing or was made with other settings: run without --only")
            run.write_config()
            for chapter in chapters:
                if on_start:
                    on_start(chapter.name)
                reports.append(_run_one(run, chapter, keys[chapter.name], notebooks, given.get(chapter.name, {}), chapter.name in forced))
                if on_chapter:
                    on_chapter(reports[-1])
    except Timeout:
        raise RuntimeError(f"{run.path} is in use by another run: wait for it, or choose another folder with --out") from None
    return reports


def _prepare(run: RunFolder, notebooks: Path, parameters: Mapping[str, Mapping[str, Any]]) -> None:
    """Check what can be checked before anything is written, then make the folder and set what the kernels inherit."""
    for name, values in parameters.items():
        check_parameters(notebooks / f"{name}.ipynb", values)
    if (run.path / "notebooks").resolve() == notebooks.resolve():
        raise ValueError(
            f"run folder {run.path} would overwrite the chapters in {notebooks}: choose another with --out, for example runs/toy"
        )
    try:
        run.path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"run folder {run.path} cannot be made ({error.strerror}): choose another with --out") from error
    os.environ.setdefault("TQDM_DISABLE", "1")
    os.environ.setdefault("JUPYTER_PREFER_ENV_PATH", "1")


def _run_one(run: RunFolder, chapter: Chapter, key: str, notebooks: Path, parameters: Mapping[str, Any], forced: bool) -> ChapterReport:
    if not forced and _is_current(run, chapter, key):
        entry = run.results[chapter.name]
        return ChapterReport(chapter.name, "skipped", entry["seconds"], entry["figures"])
    began = time.monotonic()
    run.update_result(chapter.name, status="running", key=key)
    try:
        _execute(run, chapter, notebooks, parameters)
    except BaseException as error:
        status = "interrupted" if isinstance(error, KeyboardInterrupt) else "failed"
        run.update_result(chapter.name, status=status, seconds=round(time.monotonic() - began, 1))
        raise
    seconds = round(time.monotonic() - began, 1)
    run.update_result(chapter.name, status="done", seconds=seconds)
    return ChapterReport(chapter.name, "done", seconds, run.results[chapter.name]["figures"])
