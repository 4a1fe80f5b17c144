"""The explorer of the report: a page that lets the reader flip through pictures and features, without a kernel and without a network."""

import base64
import json
from importlib.resources import files

import numpy as np

from qpm_lib.model import DinoQPM
from qpm_lib.plotting import feature_colours
from qpm_lib.report.model_pages import Page
from qpm_lib.runs import Snapshot


def explorer_page(model: DinoQPM, snapshot: Snapshot) -> Page:
    """The page; it expects the snapshot's `pictures/` beside it."""
    weight, bias = model.class_weight.cpu().numpy(), model.head.bias.cpu().numpy()
    pictures = [
        {
            "row": int(snapshot.rows[i]),
            "truth": int(snapshot.labels[snapshot.kept[i]]),
            "predicted": int(snapshot.predicted[snapshot.kept[i]]),
            "values": _short(snapshot.values[i]),
            "peaks": _short(snapshot.peaks[i]),
            "maps": base64.b64encode(np.ascontiguousarray(snapshot.maps[i]).tobytes()).decode(),
        }
        for i in np.argsort(snapshot.rows)
    ]
    content = {
        "classes": list(model.class_names),
        "features": list(model.feature_names),
        "colours": feature_colours(weight),
        "weight": [[[f, float(f"{row[f]:.5g}")] for f in np.flatnonzero(row).tolist()] for row in weight],
        "bias": _short(bias),
        "grid": int(snapshot.maps.shape[-1]),
        "pictures": pictures,
    }
    data = json.dumps(content, separators=(",", ":")).replace("<", "\\u003c")
    template = files("qpm_lib").joinpath("report/templates/explorer.html").read_text(encoding="utf-8")
    return Page("Explorer", template.replace("{{data}}", data))


def _short(values: np.ndarray) -> list[float]:
    """Five digits are plenty to be read, and to add up."""
    return [float(f"{v:.5g}") for v in values.tolist()]
