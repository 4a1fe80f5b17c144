"""The explorer of the report: a page that lets the reader flip through pictures and features,
without a kernel and without a network.
"""

import base64

import numpy as np

from qpm_lib.report.pages import Page, render
from qpm_lib.report.view import ModelView


def explorer_page(view: ModelView) -> Page:
    """The page; it expects `pictures/`, `explorer.css` and `explorer.js` beside it."""
    snapshot = view.snapshot
    pictures = [
        {
            "row": view.row(i),
            "truth": int(view.truth[i]),
            "predicted": int(view.answer[i]),
            "values": _short(snapshot.values[i]),
            "peaks": _short(snapshot.peaks[i]),
            "maps": base64.b64encode(np.ascontiguousarray(snapshot.maps[i]).tobytes()).decode(),
        }
        for i in np.argsort(snapshot.rows).tolist()
    ]
    data = {
        "classes": view.class_names,
        "features": view.feature_names,
        "colours": view.colours,
        "weight": [[[f, float(f"{row[f]:.5g}")] for f in np.flatnonzero(row).tolist()] for row in view.weight],
        "constants": _short(view.constants),
        "grid": int(snapshot.maps.shape[-1]),
        "pictures": pictures,
    }
    return Page("Explorer", render("explorer.html", data=data))


def _short(values: np.ndarray) -> list[float]:
    """Five digits are plenty to be read, and to add up."""
    return [float(f"{v:.5g}") for v in values.tolist()]
