"""Figures of a model: which class uses which feature, what adds up to a score, what is taken for what.
They take an Axes and return it.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, Int

from qpm_lib.plotting.colours import PALETTE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def new_figure(size: tuple[float, float], **options: Any) -> "Figure":
    """An empty figure of so many inches, which needs no screen; matplotlib is loaded when one is wanted."""
    from matplotlib.figure import Figure

    return Figure(figsize=size, **options)


def class_order(weight: Float[np.ndarray, "classes n"]) -> tuple[Int[np.ndarray, "classes"], Int[np.ndarray, "n"]]:
    """Order of classes and features in which similar ones are neighbours (average linkage on Jaccard distance)."""

    from scipy.cluster.hierarchy import leaves_list, linkage

    def order(rows: np.ndarray) -> np.ndarray:
        return (
            leaves_list(linkage(rows != 0, "average", metric="jaccard", optimal_ordering=True))
            if len(rows) > 2
            else np.arange(len(rows))
        )

    return order(weight), order(weight.T)


def class_feature_matrix(
    ax: "Axes", weight: Float[np.ndarray, "classes n"], class_names: Sequence[str], colours: Sequence[str]
) -> "Axes":
    """Which class uses which feature; neighbours share features, and hollow squares are negative weights."""
    classes, features = class_order(weight)
    for y, c in enumerate(classes):
        for x, f in enumerate(features):
            if weight[c, f]:
                negative = weight[c, f] < 0
                face, edge, line = ("white", colours[f], 1.5) if negative else (colours[f], "black", 0.4)
                ax.scatter(x, y, s=38, marker="s", facecolors=face, edgecolors=edge, linewidths=line)
    ax.set_xticks(range(len(features)), [str(f) for f in features], fontsize=7)
    ax.set_yticks(range(len(classes)), [class_names[c] for c in classes], fontsize=7)
    ax.set(xlabel="feature", xlim=(-0.7, len(features) - 0.3), ylim=(len(classes) - 0.3, -0.7))
    ax.grid(alpha=0.25)
    ax.set_axisbelow(True)
    return ax


def contribution_bars(
    ax: "Axes",
    contributions: Float[np.ndarray, "k"],
    features: Int[np.ndarray, "k"],
    colours: Sequence[str],
    *,
    constant: float = 0.0,
) -> "Axes":
    """What each feature adds to the logit, largest on top, and below, in grey, the constant of the class, where there
    is one; the title gives the logit, which is their sum.
    """
    order = np.argsort(contributions)
    values, ink = contributions[order].tolist(), [colours[features[i]] for i in order]
    names = [f"feature {features[i]}" for i in order]
    if constant:
        values, ink, names = [constant, *values], ["lightgrey", *ink], ["constant", *names]
    ax.barh(range(len(values)), values, color=ink, edgecolor="black", linewidth=0.5)
    ax.set_yticks(range(len(values)), names, fontsize=8)
    ax.axvline(0, color="black", linewidth=0.8)
    ax.set_title(f"logit = {contributions.sum() + constant:.2f}", fontsize=9)
    ax.tick_params(axis="x", labelsize=8)
    return ax


def confusion_matrix(ax: "Axes", counts: Int[np.ndarray, "classes classes"], class_names: Sequence[str]) -> "Axes":
    """Share of each true class (row) predicted as each class (column)."""
    from matplotlib.colors import LinearSegmentedColormap

    share = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    ramp = LinearSegmentedColormap.from_list("blue", ["white", PALETTE[5]])
    ax.imshow(share, cmap=ramp, vmin=0, vmax=1)
    ax.set_xticks(range(len(class_names)), class_names, rotation=90, fontsize=6)
    ax.set_yticks(range(len(class_names)), class_names, fontsize=6)
    ax.set(xlabel="predicted", ylabel="true")
    return ax


def bars_with_reference(
    ax: "Axes",
    values: Mapping[str, float],
    *,
    reference: float | None = None,
    reference_name: str = "",
    percent: bool = True,
) -> "Axes":
    """One bar per name, with a dashed line to compare with."""
    scale = 100 if percent else 1
    bars = ax.bar(
        list(values),
        [scale * v for v in values.values()],
        color=PALETTE[: len(values)],
        edgecolor="black",
        linewidth=0.5,
    )
    ax.bar_label(bars, fmt="%.1f", fontsize=8)
    if reference is not None:
        ax.axhline(scale * reference, linestyle="--", color="black", linewidth=1, label=reference_name)
        ax.legend(fontsize=8)
    ax.tick_params(axis="x", labelsize=8)
    return ax


def skill_table(
    ax: "Axes",
    skills: Mapping[str, Sequence[tuple[float, float, float] | None]],
    checks: Sequence[str],
    *,
    title: str = "",
) -> "Axes":
    """Skills with their intervals as a table in colours: a row for each method, a column for each check.

    Parameters
    ----------
    skills : by method, (value, low, high) in each check, or None.
    """
    values = np.array([[np.nan if s is None else s[0] for s in row] for row in skills.values()])
    ax.imshow(np.ma.masked_invalid(values), cmap="cividis", vmin=0, vmax=1, aspect="auto")
    for y, row in enumerate(skills.values()):
        for x, skill in enumerate(row):
            text = "n/a" if skill is None else f"{skill[0]:.2f} [{skill[1]:.2f}, {skill[2]:.2f}]"
            dark = skill is None or skill[0] < 0.55
            ax.text(x, y, text, ha="center", va="center", fontsize=8, color="white" if dark else "black")
    ax.set_xticks(range(len(checks)), checks)
    ax.set_yticks(range(len(skills)), list(skills), fontsize=8)
    ax.set_title(title, fontsize=10)
    return ax


def skill_chart(
    ax: "Axes",
    skills: Mapping[tuple[str, str], Sequence[tuple[float, float, float] | None]],
    checks: Sequence[str],
) -> "Axes":
    """Skills with their intervals: a group of columns for each check, a colour for each model, a mark for each map; the
    first map of the first model is the one in colour, the others are there to be compared with.

    Parameters
    ----------
    skills : by model and map, (value, low, high) in each check, or None.
    """
    models, maps = (list(dict.fromkeys(key[i] for key in skills)) for i in (0, 1))
    width = 0.8 / len(skills)
    for j, ((model, title), found) in enumerate(skills.items()):
        own = title == maps[0]
        shown = [(x + width * j, *skill) for x, skill in enumerate(found) if skill]
        x, value, low, high = np.array(shown).reshape(-1, 4).T
        label = model if own else title if model == models[0] else None
        colour = PALETTE[models.index(model)] if own else "grey"
        mark = "oxsv^"[maps.index(title) % 5]
        ax.errorbar(x, value, [value - low, high - value], fmt=mark, capsize=3, color=colour, label=label)
    ax.axhline(0, color="black", linewidth=0.8)
    ax.set_xticks(np.arange(len(checks)) + 0.4 - width / 2, checks)
    ax.set(ylabel="skill (0 random, 1 best possible)", ylim=(-0.7, 1.3))
    ax.legend(ncols=5, fontsize=8, loc="upper center")
    return ax
