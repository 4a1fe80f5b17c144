"""The explorer of the report: a page that lets the reader flip through pictures and features,
without a kernel and without a network.
"""

import base64
from typing import Any

import numpy as np

from qpm_lib.explain import METHODS
from qpm_lib.plotting import PALETTE
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
            "maps": _base64(snapshot.maps[i]),
            "others": [_base64(maps[i]) for maps in view.others.values()],
            "clusters": _base64(view.clusters.labels[i]) if view.clusters else "",
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
        "methods": [{"title": METHODS[name].title, "signed": METHODS[name].signed} for name in view.others],
        "clusters": _clusters(view),
        "signs": [PALETTE[3], PALETTE[5]],
        "pictures": pictures,
    }
    return Page("Explorer", render("explorer.html", data=data))


def _clusters(view: ModelView) -> dict[str, Any] | None:
    """How the labels of pictures are read: the side of their grid, and for 2, 3, ... clusters the colour of each of the
    finest.
    """
    if view.clusters is None:
        return None
    found, colours = view.clusters, []
    for k in range(2, len(found.sizes) + 1):
        own = found.colours(k)
        colours.append([own[cluster] for cluster in found.cuts[k - 1].tolist()])
    return {"grid": int(found.labels.shape[-1]), "colours": colours}


def _base64(values: np.ndarray) -> str:
    return base64.b64encode(np.ascontiguousarray(values).tobytes()).decode()


def _short(values: np.ndarray) -> list[float]:
    """Five digits are plenty to be read, and to add up."""
    return [float(f"{v:.5g}") for v in values.tolist()]
