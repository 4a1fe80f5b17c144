"""Pages about features: what each answers to, which classes have it, and between which it decides."""

import numpy as np

from qpm_lib.report.pages import Page, render
from qpm_lib.report.view import ModelView

_PICTURES = 8


def features_page(view: ModelView) -> Page:
    """Every feature with its examples."""
    return Page("Features", render("features.html", view=view))


def feature_page(view: ModelView, f: int) -> Page:
    """One feature: where it fires, which classes have it, between which it decides."""
    best = np.argsort(-view.snapshot.values[:, f], kind="stable")[:_PICTURES].tolist()
    found = {"users": view.classes_with(f), "best": best, "pairs": decided_by(view, f)}
    return Page(view.feature_names[f], render("feature.html", view=view, f=f, **found))


def decided_by(view: ModelView, f: int) -> list[tuple[int, int]]:
    """Pairs of a class with the feature and one without it that share all their other features but one;
    none where weights differ.
    """
    if not view.alike:
        return []
    used, sizes = view.used, view.used.sum(1)
    shared = used.astype(int) @ used.T.astype(int)
    near = (shared == sizes[:, None] - 1) & (shared == sizes - 1) & used[:, [f]] & ~used[:, f]
    return [(int(a), int(b)) for a, b in np.argwhere(near)]
