"""What classes have in common, drawn for the report: a matrix whose cells are links, and a tree of shared features."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from qpm_lib.plotting import class_order
from qpm_lib.report.pages import render

_CELL, _TOP, _LETTER, _LONGEST = 16, 22, 7, 40


def matrix(
    weight: Float[np.ndarray, "classes n"],
    class_names: Sequence[str],
    feature_names: Sequence[str],
    colours: Sequence[str],
) -> str:
    """Which class uses which feature as SVG, ordered so that neighbours share features; hollow squares are negative
    weights.

    Rows link to the pages of classes, columns to those of features.
    """
    classes, features = (order.tolist() for order in class_order(weight))
    short = [name if len(name) <= _LONGEST else name[: _LONGEST - 1] + "…" for name in class_names]
    label = 16 + _LETTER * max(map(len, short))
    left = {f: label + _CELL * x for x, f in enumerate(features)}
    columns = [{"feature": f, "name": feature_names[f], "x": x + _CELL / 2} for f, x in left.items()]
    rows = []
    for y, c in enumerate(classes):
        squares = [
            {
                "x": left[f] + 2,
                "name": feature_names[f],
                "fill": colours[f] if weight[c, f] > 0 else "#fff",
                "edge": "#333" if weight[c, f] > 0 else colours[f],
            }
            for f in features
            if weight[c, f]
        ]
        place = {"x": label - 8, "y": _TOP + _CELL * y, "squares": squares}
        rows.append({"of_class": c, "name": class_names[c], "short": short[c], **place})
    size = {"width": label + _CELL * len(features) + 8, "height": _TOP + _CELL * len(classes) + 4}
    return render("matrix.html", rows=rows, columns=columns, top=_TOP, side=_CELL - 4, **size)


class Branch(NamedTuple):
    """A node of the tree: the features that all classes below it share (as signed numbers, see `shared_tree`),
    its class, its branches.
    """

    features: frozenset[tuple[int, int]]
    of_class: int | None
    branches: tuple["Branch", ...]


def shared_tree(weight: Float[np.ndarray, "classes n"]) -> Branch:
    """Classes as a tree: the deeper a branch, the more features its classes have in common. Leaves are classes with all
    their features.

    Average linkage on Jaccard distance, with every branch dropped that adds no shared feature.
    A feature is a pair (number, sign): one that speaks for a class and one that speaks against it are not the same.
    """
    from scipy.cluster.hierarchy import linkage

    signs = np.sign(weight).astype(int)
    sets = [frozenset((f, int(row[f])) for f in np.flatnonzero(row).tolist()) for row in signs]
    nodes = [Branch(features, c, ()) for c, features in enumerate(sets)]
    if len(nodes) == 1:
        return nodes[0]
    for first, second, *_ in linkage(np.concatenate([signs > 0, signs < 0], 1), "average", metric="jaccard"):
        pair = nodes[int(first)], nodes[int(second)]
        shared = pair[0].features & pair[1].features
        kept = [
            inner
            for node in pair
            for inner in (node.branches if node.of_class is None and node.features == shared else (node,))
        ]
        nodes.append(Branch(shared, None, tuple(kept)))
    return nodes[-1]
