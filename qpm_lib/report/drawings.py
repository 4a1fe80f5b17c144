"""What classes have in common, drawn for the report: a matrix whose cells are links, and a tree of shared features."""

import html
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from qpm_lib.plotting import class_order

_CELL, _TOP, _LETTER, _LONGEST = 16, 22, 7, 40


def matrix_svg(
    weight: Float[np.ndarray, "classes n"],
    class_names: Sequence[str],
    feature_names: Sequence[str],
    colours: Sequence[str],
) -> str:
    """Which class uses which feature, ordered so that neighbours share features; hollow squares are negative weights.

    Rows link to the pages of classes, columns to those of features.
    """
    classes, features = class_order(weight)
    short = [name if len(name) <= _LONGEST else name[: _LONGEST - 1] + "…" for name in class_names]
    label = 16 + _LETTER * max(map(len, short))
    width, height = label + _CELL * len(features) + 8, _TOP + _CELL * len(classes) + 4
    parts = [
        f'<svg role="group" aria-label="Matrix of {len(classes)} classes and {len(features)} features" viewBox="0 0 {width} {height}" '
        f'width="{width}" height="{height}" font-size="11" font-family="system-ui, sans-serif">'
    ]
    for x, f in enumerate(features.tolist()):
        left = label + _CELL * x
        parts.append(
            f'<line x1="{left + _CELL / 2}" x2="{left + _CELL / 2}" y1="{_TOP}" y2="{height}" stroke="#e3e7ec"/>'
        )
        parts.append(
            f'<a href="{feature_page(f)}"><title>{html.escape(feature_names[f])}</title>'
            f'<text x="{left + _CELL / 2}" y="{_TOP - 8}" text-anchor="middle">{f}</text></a>'
        )
    for y, c in enumerate(classes.tolist()):
        top, name = _TOP + _CELL * y, class_names[c]
        parts.append(
            f'<a href="{class_page(c)}"><title>{html.escape(name)}</title>'
            f'<text x="{label - 8}" y="{top + 12}" text-anchor="end">{html.escape(short[c])}</text></a>'
        )
        for x, f in enumerate(features.tolist()):
            if weight[c, f]:
                fill, edge = (colours[f], "#333") if weight[c, f] > 0 else ("#fff", colours[f])
                parts.append(
                    f'<rect x="{label + _CELL * x + 2}" y="{top + 2}" width="{_CELL - 4}" height="{_CELL - 4}" fill="{fill}" stroke="{edge}">'
                    f"<title>{html.escape(name)}: {html.escape(feature_names[f])}</title></rect>"
                )
    return f'<div class="scroll" tabindex="0" role="region" aria-label="Matrix of classes and features">{"".join(parts)}</svg></div>'


class Branch(NamedTuple):
    """A node of the tree: the features that all classes below it share (as signed numbers, see `shared_tree`), its class, its branches."""

    features: frozenset[tuple[int, int]]
    of_class: int | None
    branches: tuple["Branch", ...]


def shared_tree(weight: Float[np.ndarray, "classes n"]) -> Branch:
    """Classes as a tree: the deeper a branch, the more features its classes have in common. Leaves are classes with all their features.

    Average linkage on Jaccard distance, with every branch dropped that adds no shared feature. A feature is a pair (number, sign): one that
    speaks for a class and one that speaks against it are not the same.
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


def tree_html(root: Branch, class_names: Sequence[str], chip: Callable[[int, int], str]) -> str:
    """The tree as nested lists; `chip` draws a feature with its sign."""

    def listed(node: Branch, above: frozenset[tuple[int, int]]) -> str:
        chips = " ".join(chip(f, sign) for f, sign in sorted(node.features - above))
        if node.of_class is not None:
            name = html.escape(class_names[node.of_class])
            return f'<li><a href="{class_page(node.of_class)}">{name}</a> {chips}</li>'
        below = "".join(listed(branch, node.features) for branch in node.branches)
        return f"<li>{chips or 'nothing shared by all'}<ul>{below}</ul></li>"

    return f'<ul class="tree">{listed(root, frozenset())}</ul>'


def class_page(c: int) -> str:
    """File name of the page of a class."""
    return f"class_{c:03d}.html"


def feature_page(f: int) -> str:
    """File name of the page of a feature."""
    return f"feature_{f:02d}.html"
