"""The page of a comparison: maps of all methods on the same pictures, to be switched, and all tables; readable offline.

It is part of the report of a run, and what `qpm compare` leaves.
"""

import shutil
from pathlib import Path

from qpm_lib.comparison import MEASURES, Comparison, agreement_rows, maps_figure, score_rows
from qpm_lib.core import METHODS, write_atomically
from qpm_lib.report.pages import Page, render, write_alone

FOLDER = "side_by_side"


def side_by_side_page(found: Comparison, folder: Path) -> Page:
    """The page; its pictures are written to `side_by_side/` in a folder."""
    count = len(found.shown.pictures)
    for model in found.models:
        for number in range(count):
            figure = maps_figure(found, model, number)
            path = folder / FOLDER / f"{model}_{number}.jpg"
            write_atomically(path, lambda place, f=figure: f.savefig(place, dpi=100, format="jpg"))
    tables = {
        METHODS[model]: {
            "seeds": ", ".join(map(str, found.seeds[model])),
            "scores": score_rows(found, model),
            "agreement": agreement_rows(found, model),
        }
        for model in found.models
    }
    asked = [MEASURES[m] for m in MEASURES if any(m in found.measures(model) for model in found.models)]
    body = render(
        "side_by_side.html",
        folder=FOLDER,
        models={model: METHODS[model] for model in found.models},
        told=found.shown.told,
        count=count,
        pictures=found.pictures,
        tables=tables,
        measures=asked,
    )
    return Page("Side by side", body)


def write_side_by_side(found: Comparison, folder: Path) -> Path:
    """A page of its own in a folder, with its pictures and style; pictures of an earlier one go. Returns the page."""
    shutil.rmtree(folder / FOLDER, ignore_errors=True)
    return write_alone(side_by_side_page(found, folder), folder)
