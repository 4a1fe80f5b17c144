"""A comparison as figures: a table in colours, and how well cheap measures agree with the truth."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from qpm_lib.comparison.measures import MEASURES
from qpm_lib.comparison.result import Comparison, knows_nothing, method_title
from qpm_lib.core import METHODS
from qpm_lib.plotting import new_figure, show_maps


def maps_figure(comparison: Comparison, model: str, number: int, *, columns: int = 7) -> Figure:
    """The maps of all methods for one of the pictures that are shown, each on its own scale."""
    shown = comparison.shown
    there = [name for name in comparison.methods(model) if (model, name) in shown.maps]  # of its first seed
    maps = {method_title(name): shown.maps[model, name][number] for name in there}
    rows = -(-(len(maps) + 1) // columns)
    figure = new_figure((1.45 * columns, 1.75 * rows + 0.3), layout="constrained")
    caption = f"{METHODS[model]}: why {shown.told[model][number]}"
    show_maps(figure.subplots(), shown.pictures[number] / 255, maps, columns=columns, caption=caption)
    return figure


def score_table(ax: Axes, comparison: Comparison, model: str) -> Axes:
    """Mean scores, a row for each method and a column for each measure. Colours are ranks within a column: bright is
    best. Bold is the best and what cannot be told from it; methods that know nothing are in italics.
    """
    names, columns = comparison.methods(model), comparison.measures(model)
    ranks = np.full((len(names), len(columns)), np.nan)
    for x, measure in enumerate(columns):
        means = comparison.means(model, measure)
        order = sorted(means, key=lambda name: means[name].value)
        leaders = comparison.leaders(model, measure)
        for name, found in means.items():
            y, rank = names.index(name), order.index(name) / max(1, len(order) - 1)
            ranks[y, x] = rank
            weight, colour = "bold" if name in leaders else "normal", "black" if rank > 0.55 else "white"
            ax.text(x, y, f"{found.value:.2f}", ha="center", va="center", fontsize=8, color=colour, fontweight=weight)
    ax.imshow(np.ma.masked_invalid(ranks), cmap="cividis", vmin=0, vmax=1, aspect="auto")
    ax.set_xticks(range(len(columns)), [MEASURES[m].title for m in columns], rotation=35, ha="right", fontsize=8)
    ax.set_yticks(range(len(names)), [method_title(name) for name in names], fontsize=8)
    for label, name in zip(ax.get_yticklabels(), names, strict=True):
        label.set_style("italic" if knows_nothing(name) else "normal")
    ax.set_title(METHODS[model], fontsize=10)
    return ax


def agreement_table(ax: Axes, comparison: Comparison, model: str) -> Axes:
    """Rank correlation over methods of each measure with each that is the truth, on separate halves of the pictures,
    with its 95 % interval: dark is no agreement, or a contrary one; framed is a truth with itself.
    """
    found = comparison.agreement(model)
    cheap, truth = (list(dict.fromkeys(pair[i] for pair in found)) for i in (0, 1))
    values = np.full((len(cheap), len(truth)), np.nan)
    for (a, b), one in found.items():
        y, x = cheap.index(a), truth.index(b)
        values[y, x] = one.value
        text, colour = f"{one.value:.2f} [{one.low:.2f}, {one.high:.2f}]", "black" if one.value > 0.1 else "white"
        ax.text(x, y, text, ha="center", va="center", fontsize=8, color=colour)
        if a == b:
            ax.add_patch(Rectangle((x - 0.47, y - 0.47), 0.94, 0.94, fill=False, edgecolor=colour))
    if values.size:
        ax.imshow(np.ma.masked_invalid(values), cmap="cividis", vmin=-1, vmax=1, aspect="auto")
    ax.set_xticks(range(len(truth)), [MEASURES[m].title for m in truth], fontsize=8)
    ax.set_yticks(range(len(cheap)), [MEASURES[m].title for m in cheap], fontsize=8)
    ax.set_title(METHODS[model], fontsize=10)
    return ax
