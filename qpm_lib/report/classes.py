"""Pages about classes: what each consists of, what it is near to, what it is taken for."""

import numpy as np

from qpm_lib.report.drawings import matrix, shared_tree
from qpm_lib.report.pages import Page, render
from qpm_lib.report.view import ModelView

_PICTURES, _NEIGHBOURS = 12, 3


def classes_page(view: ModelView) -> Page:
    """The matrix, the tree, and every class in a line."""
    drawn = matrix(view.weight, view.class_names, view.feature_names, view.colours)
    tree = shared_tree(view.weight)
    return Page("Classes", render("classes.html", view=view, matrix=drawn, tree=tree, nothing=frozenset()))


def class_page(view: ModelView, c: int) -> Page:
    """One class: its features on a typical picture, its neighbours, its pictures, what it is taken for."""
    mine, features = np.flatnonzero(view.truth == c), view.features_of(c)
    right = mine[view.answer[mine] == c].tolist()
    strip = ""
    if right and features:
        strip = view.strip(right[0], [features, *([f] for f in features)], f"class_{c:03d}")
    pictures = sorted(mine.tolist(), key=lambda i: view.answer[i] == c)[:_PICTURES]  # mistakes first
    found = {"near": _nearest(view, c), "taken_for": _taken_for(view, c), "pictures": pictures, "strip": strip}
    names = [view.feature_names[f] for f in features]
    return Page(view.class_names[c], render("class.html", view=view, c=c, names=names, **found))


def _nearest(view: ModelView, c: int) -> list[tuple[int, int, list[int], list[int]]]:
    """Classes that share most features (for or against alike), how many, and the features that only one of the two has.

    Among equals those come first that are taken for this class or it for them.
    """
    signs, labels, predicted = np.sign(view.weight), view.snapshot.labels, view.snapshot.predicted
    common = (signs == signs[c]) & view.used
    shared, n = common.sum(1), len(signs)
    mixed = np.bincount(predicted[labels == c], minlength=n) + np.bincount(labels[predicted == c], minlength=n)
    order = np.lexsort((-mixed, -shared)).tolist()
    return [
        (d, int(shared[d]), *(np.flatnonzero(view.used[x] & ~common[d]).tolist() for x in (c, d)))
        for d in [d for d in order if d != c and shared[d] > 0][:_NEIGHBOURS]
    ]


def _taken_for(view: ModelView, c: int) -> list[tuple[int, int]]:
    """Other classes that pictures of this one were taken for, with their number."""
    labels, predicted = view.snapshot.labels, view.snapshot.predicted
    wrong = np.bincount(predicted[(labels == c) & (predicted != c)], minlength=len(view.class_names))
    return [(d, int(wrong[d])) for d in np.argsort(-wrong, kind="stable").tolist() if wrong[d]]
