"""Figures of clusters: the pictures with their segmentations, and the most typical patches of each cluster."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Bool
from PIL import Image

from qpm_lib.explain.inspection import Inspection, patch_panel
from qpm_lib.plotting import label_overlay, new_figure, outlined, show_images

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def contact_sheet(found: Inspection, read: Sequence[Image.Image], k: int, *, count: int = 24) -> "Figure":
    """Some pictures of an inspection, spread over all, each beside its segmentation into k clusters.

    Parameters
    ----------
    read : the pictures as the backbone sees them; only those needed are asked for.
    """
    panels, colours, labels = [], found.colours(k), found.at(k)
    chosen = np.unique(np.linspace(0, len(read) - 1, count).astype(int)).tolist()
    for i in chosen:
        square = np.asarray(read[i])
        panels += [square, label_overlay(square, labels[i], colours)]
    figure = new_figure((9.6, 1.6 * -(-len(panels) // 6) + 0.4))
    show_images(figure.add_subplot(), panels, columns=6, caption=f"{k} clusters; {len(chosen)} of {len(read)} pictures")
    return figure


def cluster_sheet(found: Inspection, read: Sequence[Image.Image], k: int) -> "Figure":
    """The most typical patches of each of k clusters, one from each picture, in a row with its share of all patches.

    Parameters
    ----------
    read : the pictures as the backbone sees them; only those needed are asked for.
    """
    figure = new_figure((9, 0.95 * k + 0.3))
    grid = found.labels.shape[-1]
    shares = [found.sizes[inside].sum() / found.sizes.sum() for inside in found.members(k)]
    inside_object = [found.is_object[inside].any() for inside in found.members(k)]
    for cluster, (places, colour) in enumerate(zip(found.examples(k), found.colours(k), strict=True)):
        ax = figure.add_subplot(k, 1, cluster + 1)
        panels = [np.full((72, 72, 3), np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]), np.uint8)]
        panels += [np.asarray(patch_panel(read[i], row, column, grid)) for i, row, column in places]
        show_images(ax, panels, columns=9)
        name = f"{cluster}: {100 * shares[cluster]:.0f} %" + (", object" if inside_object[cluster] else "")
        ax.set_title(name, loc="left", fontsize=8, pad=2)
    return figure


def marked_sheet(squares: Sequence[Image.Image], marked: Bool[np.ndarray, "m g g"], caption: str) -> "Figure":
    """Pictures with a line around some of their patches, six in a row."""
    panels = [outlined(np.asarray(square), where) for square, where in zip(squares, marked, strict=True)]
    figure = new_figure((9.6, 1.6 * -(-len(panels) // 6) + 0.4))
    show_images(figure.add_subplot(), panels, columns=6, caption=caption)
    return figure
