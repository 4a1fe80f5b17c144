"""The report of a run: a folder of static HTML pages, readable offline, with the figures inside."""

import contextlib
import shutil
from collections.abc import Collection, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from qpm_lib.comparison import Comparison
from qpm_lib.core import read_object, stage_key
from qpm_lib.model import DinoQPM, load_calibration
from qpm_lib.report.classes import class_page, classes_page
from qpm_lib.report.clusters import clusters_page
from qpm_lib.report.explorer_page import explorer_page
from qpm_lib.report.features import feature_page, features_page
from qpm_lib.report.index import chapter_title, index_page, maker_of
from qpm_lib.report.mistakes import mistakes_page
from qpm_lib.report.notebooks import notebook_html
from qpm_lib.report.pages import Page, class_file, feature_file, render, whole_page
from qpm_lib.report.side_by_side import side_by_side_page
from qpm_lib.report.timing import timing_page
from qpm_lib.report.view import ModelView
from qpm_lib.runs import Chapter, RunFolder, Snapshot, chain, current_chapters, is_whole

_ASSETS = ("style.css", "explorer.css", "explorer.js")


def build_report(run: RunFolder, parameters: Mapping[str, Mapping[str, Any]] | None = None) -> Path:
    """Write `report/`: an index, the explorer, pages of classes, features and mistakes, one per executed chapter,
    and one of their times; return the index.

    The folder is replaced as a whole. Results that do not belong to the settings of now are left out.

    Parameters
    ----------
    parameters : notebook parameters by chapter name, as given to `runs.run_chapters`.

    Raises
    ------
    ValueError : when something that is no folder lies in its place.
    """
    folder, place = run.path / ".report", run.path / "report"
    if place.is_symlink() or (place.exists() and not place.is_dir()):
        raise ValueError(
            f"{place} is no folder, and the report goes there: move it away and run the same command again"
        )
    shutil.rmtree(folder, ignore_errors=True)
    try:
        _write(run, folder, current_chapters(run, parameters))
        if place.exists():
            shutil.rmtree(place)
        folder.replace(place)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return place / "index.html"


def _write(run: RunFolder, folder: Path, current: Collection[str]) -> None:
    figures = _copy_figures(run, folder, current)
    for name in _ASSETS:
        (folder / name).write_bytes((files("qpm_lib.report") / "templates" / name).read_bytes())
    view, pages = _view(run, folder, current), {}
    links = [("index.html", "Report")]
    if view:
        pages = model_pages(view)
        links += [(file, pages[file].title) for file in ("explorer.html", "classes.html", "features.html")]
        links.append(("mistakes.html", "Mistakes"))
        links += [("clusters.html", "Encoder")] if view.clusters else []
    if compared := _comparison(run, current):
        pages["side_by_side.html"] = side_by_side_page(compared, folder)
        links.append(("side_by_side.html", "Side by side"))
    for chapter in chain(run.config):
        body = _chapter_body(run, chapter, current, explorer=view is not None)
        pages[f"{chapter.name}.html"] = Page(chapter_title(chapter.name), body)
        links.append((f"{chapter.name}.html", chapter_title(chapter.name)))
    if timing := timing_page(run, [chapter.name for chapter in chain(run.config) if chapter.name in current]):
        pages["timing.html"] = timing
        links.append(("timing.html", timing.title))
    pages["index.html"] = index_page(run, view, current, figures)
    for file, page in pages.items():
        (folder / file).write_text(whole_page(page, links), encoding="utf-8")


def _comparison(run: RunFolder, current: Collection[str]) -> Comparison | None:
    """What `qpm compare --report` kept of the run of now, or chapter 11 found; None where neither belongs to it."""
    card = run.compared / "comparison.json"
    with contextlib.suppress(ValueError):
        if card.exists() and read_object(card).get("made_by") == stage_key(run.config, "ranking"):
            return Comparison.load(run.compared)
    if not maker_of("comparison/comparison.json", run, current):
        return None
    with contextlib.suppress(ValueError):  # damaged: the chapter that makes it says so
        return Comparison.load(run.path / "comparison")
    return None


def _copy_figures(run: RunFolder, folder: Path, current: Collection[str]) -> list[str]:
    """Copy the figures of chapters that are current; their names."""
    (folder / "figures").mkdir(parents=True)
    numbers = {name.partition("_")[0] for name in current}
    kept = [path for path in sorted((run.path / "figures").glob("*.png")) if path.name.partition("_")[0] in numbers]
    for path in kept:
        shutil.copyfile(path, folder / "figures" / path.name)
    return [path.name for path in kept]


def _view(run: RunFolder, folder: Path, current: Collection[str]) -> ModelView | None:
    """The model, its pictures copied into the report; None while there is no described model, or no snapshot of it."""
    if not (maker_of("model/model.json", run, current) and maker_of("snapshot/snapshot.json", run, current)):
        return None
    try:
        snapshot, model = run.load_snapshot(), run.load_model().cpu()
    except ValueError:  # damaged: the chapter that makes it says so
        return None
    if not _agree(model, snapshot):
        return None
    shutil.copytree(run.path / "snapshot" / "pictures", folder / "pictures")
    if (run.path / "model" / "examples").is_dir():
        shutil.copytree(run.path / "model" / "examples", folder / "examples")
    others = None
    if maker_of("explanations/maps.json", run, current):
        with contextlib.suppress(ValueError):  # damaged: the chapter that makes them says so
            others = run.load_method_maps()
    clusters = None
    if maker_of("clusters/clusters.json", run, current):
        with contextlib.suppress(ValueError):
            clusters = run.load_inspection()
    sets = None
    if maker_of("model/calibration.json", run, current):
        with contextlib.suppress(ValueError):
            sets = load_calibration(run.path / "model", model)
    return ModelView(model, snapshot, folder, others=others, clusters=clusters, sets=sets)


def _agree(model: DinoQPM, snapshot: Snapshot) -> bool:
    """Whether the model would answer as the snapshot says."""
    scores = snapshot.values @ model.class_weight.numpy().T + model.head.constants.numpy()
    answered = scores[np.arange(len(scores)), snapshot.predicted[snapshot.kept]]
    return bool((answered >= scores.max(1) - 1e-3 * np.abs(scores).max()).all())


def model_pages(view: ModelView) -> dict[str, Page]:
    """Every page about the model, by file name."""
    pages = {
        "explorer.html": explorer_page(view),
        "classes.html": classes_page(view),
        "features.html": features_page(view),
        "mistakes.html": mistakes_page(view),
    }
    if view.clusters:
        pages["clusters.html"] = clusters_page(view)
    pages |= {class_file(c): class_page(view, c) for c in range(len(view.class_names))}
    return pages | {feature_file(f): feature_page(view, f) for f in range(len(view.feature_names))}


def _chapter_body(run: RunFolder, chapter: Chapter, current: Collection[str], *, explorer: bool) -> str:
    from markupsafe import Markup

    notebook, body = run.path / "notebooks" / f"{chapter.name}.ipynb", None
    if is_whole(notebook):
        body = Markup(notebook_html(notebook, explorer=explorer))  # noqa: S704 - made by nbconvert from the run's own copy
    return render("chapter.html", body=body, current=chapter.name in current)
