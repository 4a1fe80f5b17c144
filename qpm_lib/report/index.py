"""The first page of the report: the run at a glance, its results, the proof of its selection, the model as a whole."""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from qpm_lib.core import METHODS, read_json
from qpm_lib.metrics import MEASURES
from qpm_lib.report.drawings import matrix
from qpm_lib.report.pages import Page, counted, render
from qpm_lib.report.view import ModelView
from qpm_lib.runs import RunFolder, cell_text, chain, single_cell

_FIGURES = {
    "05_explanation": "One prediction: the features that made it, where they lie, and what each adds to the score.",
    "06_comparison": "The three models side by side.",
}


class Tile(NamedTuple):
    """A figure that matters most, what it means, and where to read on."""

    big: str
    small: str
    link: str = ""


def maker_of(file: str, run: RunFolder, current: Collection[str]) -> str:
    """Name of the chapter that left a file, empty while what is there does not belong to the run of now."""
    return next((c.name for c in chain(run.config) if file in c.leaves and c.name in current), "")


def chapter_title(name: str) -> str:
    """`01 frozen features` for `01_frozen_features`."""
    number, _, words = name.partition("_")
    return f"{number} {words.replace('_', ' ')}"


def index_page(run: RunFolder, view: ModelView | None, current: Collection[str], figures: Collection[str]) -> Page:
    """The first page.

    Parameters
    ----------
    view : the finished model; None while there is none. current : chapters whose results belong to the settings of now.
        figures : files in `figures/`.
    """
    results = run.load_metrics() if maker_of("metrics.json", run, current) else {}
    proof_in = maker_of("selection.json", run, current)
    selection = read_json(run.path / "selection.json") if proof_in else {}
    tiles = _result_tiles(run, results) + (_model_tiles(view) if view else [])
    if "objective" in selection:
        tiles.append(_proof_tile(selection, proof_in))
    drawn = matrix(view.weight, view.class_names, view.feature_names, view.colours) if view else ""
    body = render(
        "index.html",
        name=run.path.name,
        facts=_facts(run),
        tiles=tiles,
        figures={name: caption for name, caption in _FIGURES.items() if f"{name}.png" in figures},
        matrix=drawn,
        matrix_words=view.matrix_words if view else "",
        results=list(map(list, zip(*comparison_rows(results), strict=True))) if results else [],
        with_chance=any(result["values"].get("plausibility") is not None for result in results.values()),
        missing=_missing(results),
        selection=_selection(selection) if selection else [],
        chapters=_chapters(run, current),
    )
    return Page(f"Run {run.path.name}", body)


def comparison_rows(metrics: dict[str, Any]) -> list[list[str]]:
    """Rows of the comparison table: a heading, then one row per model."""
    rows = [["model", *MEASURES.values()]]
    for key, name in METHODS.items():
        if key in metrics:
            rows.append([name, *(cell_text(single_cell(metrics[key], m), m) for m in MEASURES)])
    return rows


def _result_tiles(run: RunFolder, results: Mapping[str, Any]) -> list[Tile]:
    method = run.config.selection.method
    if method not in results:
        return []
    values, intervals = results[method]["values"], results[method]["intervals"]
    low, high = intervals.get("accuracy", (values["accuracy"],) * 2)
    meaning = f"accuracy on test pictures (95 % interval {100 * low:.1f} to {100 * high:.1f})"
    tiles = [Tile(f"{100 * values['accuracy']:.1f} %", meaning)]
    if values.get("plausibility") is not None:
        uninformed = [100 * values[name] for name in ("plausibility_chance", "plausibility_centre")]
        chance = f" (of a uniform map {uninformed[0]:.0f} %, of a centred blob {uninformed[1]:.0f} %)"
        tiles.append(Tile(f"{100 * values['plausibility']:.1f} %", f"of the explanation lies on the object{chance}"))
    return tiles


def _model_tiles(view: ModelView) -> list[Tile]:
    wrong, n = int((view.snapshot.labels != view.snapshot.predicted).sum()), len(view.snapshot.labels)
    per_class = f"{view.weight.shape[1]} features for {view.weight.shape[0]} classes"
    tiles = [
        Tile(f"{view.used.sum(1).mean():.3g} per class", per_class, "classes.html"),
        Tile(counted(wrong, "mistake", "mistakes"), f"in {n} test pictures, with reasons", "mistakes.html"),
    ]
    if view.model.manifest is not None and view.model.manifest.locality is not None:
        found = view.model.manifest.locality
        chance = f"(elsewhere {100 * found['kept_random']:.0f} %)"
        meaning = f"of a feature is left when only the place it shows is kept {chance}"
        tiles.append(Tile(f"{100 * found['kept']:.0f} %", meaning, "06_evaluation.html"))
    return tiles


def _proof_tile(selection: Mapping[str, Any], proof_in: str) -> Tile:
    if selection["gap"] <= 0 or selection["status"] == "optimal":
        return Tile("proven optimal", "no selection is better", f"{proof_in}.html")
    meaning = "the selection is proven to be at most this far from the best one"
    return Tile(f"gap {100 * selection['gap']:.2f} %", meaning, f"{proof_in}.html")


def _facts(run: RunFolder) -> dict[str, Any]:
    config = run.config
    return {
        "Profile": config.profile,
        "method": METHODS[config.selection.method],
        "backbone": config.backbone.name,
        "pictures": Path(config.data.root).resolve().name if config.data.root else "rendered toy birds",
        "seed": config.seed,
    }


def _missing(results: Mapping[str, Any]) -> dict[str, list[str]]:
    """Reasons why measures are not available, and whose."""
    missing: dict[str, list[str]] = {}
    for key, result in results.items():
        for measure, why in result["notes"].items():
            missing.setdefault(why, []).append(f"{MEASURES.get(measure, measure)} of the {METHODS.get(key, key)}")
    return missing


def _selection(s: Mapping[str, Any]) -> list[list[str]]:
    rows = [["selection", "value"], ["features selected", str(len(s["features"]))]]
    if "objective" in s:
        rows.append(["objective", f"{s['objective']:.4f}"])
        rows.append(["proven bound", f"{s['bound']:.4f}"])
        rows.append(["gap", f"{100 * s['gap']:.3f} %"])
    how = "status" if "status" in s else "method"
    rows.append([how, s.get("status", METHODS.get(s.get("method"), ""))])
    rows.append(["seconds", f"{s['seconds']:.1f}"])
    return rows


def _chapters(run: RunFolder, current: Collection[str]) -> list[list[str]]:
    rows = [["chapter", "status", "seconds"]]
    for chapter in chain(run.config):
        entry = run.results.get(chapter.name, {})
        status = entry.get("status", "not run")
        status = "out of date" if status == "done" and chapter.name not in current else status
        rows.append([chapter_title(chapter.name), status, str(entry.get("seconds", ""))])
    return rows
