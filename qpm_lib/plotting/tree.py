"""The hierarchy of classes of one picture as a tree: features as nodes in their colours, classes as leaves."""

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Int

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_PALE, _DARK = "#BBBBBB", "#000000"


def class_tree(
    ax: "Axes",
    features: Int[np.ndarray, "classes k"],
    class_names: Sequence[str],
    colours: Sequence[str],
    *,
    predicted: int,
    level: int | None = None,
    members: Collection[int] = (),
) -> "Axes":
    """All classes by their features in this picture, strongest first; the path of the prediction is drawn thick.

    Parameters
    ----------
    features : of every class in the order of their strength, -1 where a path has ended. level : drawn as a dashed
        line: classes that leave the thick path above it are out. members : classes of the prediction set, in bold;
        the features on their paths are numbered.
    """
    order = sorted(range(len(features)), key=lambda c: _first_with(features, predicted, c))
    place, k = {c: x for x, c in enumerate(order)}, features.shape[1]
    _branches(ax, features, colours, predicted, place, members)
    for c in order:
        depth = int((features[c] >= 0).sum())
        if depth < k:
            ax.plot([place[c], place[c]], [depth, k], color=_PALE, linewidth=0.6, linestyle=":", zorder=0)
        ink = _DARK if c in members or c == predicted else "#777777"
        words = {"rotation": 90, "ha": "center", "va": "top", "fontsize": 7, "color": ink}
        ax.text(place[c], k + 0.25, class_names[c], weight="bold" if c in members else "normal", **words)
    if level is not None:
        ax.axhline(min(level + 0.5, k + 0.15), color="#0072B2", linestyle="--", linewidth=1.2)
    ax.set(xlim=(-0.8, len(features) - 0.2), ylim=(k + 0.2, -0.3), ylabel="level")
    ax.set_xticks([])
    ax.set_yticks(range(k + 1))
    for side in ("top", "right", "bottom"):
        ax.spines[side].set_visible(False)
    return ax


def _branches(
    ax: "Axes",
    features: Int[np.ndarray, "classes k"],
    colours: Sequence[str],
    predicted: int,
    place: Mapping[int, int],
    members: Collection[int],
) -> None:
    """Nodes and the lines between them; a node stands above the middle of its classes."""
    nodes: dict[tuple[int, ...], list[int]] = {}
    for c, row in enumerate(features.tolist()):
        path = tuple(f for f in row if f >= 0)
        for depth in range(len(path) + 1):
            nodes.setdefault(path[:depth], []).append(c)
    centre = {path: float(np.mean([place[c] for c in classes])) for path, classes in nodes.items()}
    numbered = {path for path, classes in nodes.items() if set(classes) & set(members)}
    own = tuple(f for f in features[predicted].tolist() if f >= 0)
    for path in sorted(nodes, key=lambda path: path == own[: len(path)]):
        on = path == own[: len(path)]
        if path:
            ends = (centre[path[:-1]], centre[path]), (len(path) - 1, len(path))
            ax.plot(*ends, color=_DARK if on else _PALE, linewidth=2.2 if on else 0.9, zorder=2 if on else 1)
            style = {"s": 150 if on else 55, "edgecolors": _DARK if on else _PALE, "zorder": 4 if on else 3}
            ax.scatter(centre[path], len(path), color=colours[path[-1]], **style)
            if on or len(path) == 1 or path in numbered:
                ax.text(centre[path], len(path), str(path[-1]), ha="center", va="center", fontsize=6, zorder=5)


def _first_with(features: Int[np.ndarray, "classes k"], predicted: int, c: int) -> tuple[int, ...]:
    """Classes that go along with the prediction farthest stand first, and equal beginnings stand together."""
    same = (features[c] == features[predicted]).cumprod()
    return (-int(same.sum()), *features[c].tolist(), c)
