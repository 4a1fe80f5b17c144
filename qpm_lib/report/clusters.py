"""The page about the encoder: what it groups together in the pictures of the report, without any class."""

import numpy as np

from qpm_lib.data import read_image
from qpm_lib.explain import patch_panel
from qpm_lib.plotting import label_overlay, to_jpeg
from qpm_lib.report.pages import Page, render
from qpm_lib.report.view import ModelView

_K, _PICTURES, _SIDE = 10, 12, 128


def clusters_page(view: ModelView) -> Page:
    """The page; its pictures are written to `clusters/` in the folder of the report."""
    found, place = view.clusters, view.folder / "clusters"
    k = min(_K, len(found.sizes))
    place.mkdir(exist_ok=True)
    pictures = [read_image(view.folder / "pictures" / f"{name}.jpg") for name in found.names]
    colours, rows = found.colours(k), []
    for cluster, (inside, examples) in enumerate(zip(found.members(k), found.examples(k), strict=True)):
        grid = found.labels.shape[-1]
        panels = [np.asarray(patch_panel(pictures[i], row, column, grid)) for i, row, column in examples]
        if panels:
            (place / f"cluster_{cluster:02d}.jpg").write_bytes(to_jpeg(np.concatenate(panels, axis=1)))
        share = found.sizes[inside].sum() / found.sizes.sum()
        is_object = bool(found.is_object[inside].any())
        rows.append({"colour": colours[cluster], "share": share, "object": is_object, "seen": bool(panels)})
    shown = np.unique(np.linspace(0, len(pictures) - 1, _PICTURES).astype(int)).tolist()
    labels = found.at(k)
    for i in shown:
        square = np.asarray(pictures[i].resize((_SIDE, _SIDE)))
        drawn = np.round(255 * label_overlay(square, labels[i], colours)).astype(np.uint8)
        (place / f"picture_{found.names[i]}.jpg").write_bytes(to_jpeg(np.concatenate([square, drawn], axis=1)))
    said = {found.names[i]: view.said(i) for i in shown}
    return Page("Encoder", render("clusters.html", k=k, rows=rows, pictures=said, finest=len(found.sizes)))
