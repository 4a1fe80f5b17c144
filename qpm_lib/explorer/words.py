"""What the explorer says in words and bars, as HTML."""

import html
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Int

from qpm_lib.explain import Comparison


def words_html(title: str, answer: str, score: float, truth: str | None, places: Sequence[tuple[str, str]]) -> str:
    """What a picture shows, in words: the answer with its score, the truth where it is known, and where each feature lies."""
    said = "" if truth is None else f"; truth <b>{html.escape(truth)}</b>, {'right' if truth == answer else 'wrong'}"
    listed = ", ".join(f"{html.escape(name)} {place}" for name, place in places) or "none"
    return (
        f'<div aria-live="polite" style="overflow-wrap:anywhere">{html.escape(title)}: predicted <b>{html.escape(answer)}</b> ({score:.2f})'
        f"{said}.<br>Features shown: {listed}.</div>"
    )


def bar_html(value: float, longest: float, colour: str) -> str:
    """A contribution as a bar with its number; negative ones are hatched."""
    hatched = "repeating-linear-gradient(45deg,#fff 0 3px,transparent 3px 6px) " if value < 0 else ""
    box = f"width:{55 * abs(value) / longest:.0f}%;height:14px;border:1px solid #333;background:{hatched}{colour}"
    return f'<div style="display:flex;align-items:center;gap:6px"><div aria-hidden="true" style="{box}"></div><span>{value:+.2f}</span></div>'


def comparison_html(
    classes: tuple[str, str], groups: Comparison, added: Float[np.ndarray, "n"], names: Sequence[str], difference: float
) -> str:
    """Two classes in words: which features only one of them has, with what each adds to the difference of the scores."""
    first, second = map(html.escape, classes)

    def listed(features: Int[np.ndarray, "m"]) -> str:
        return ", ".join(f"{html.escape(names[f])} ({added[f]:+.2f})" for f in features.tolist()) or "none"

    both = ", ".join(html.escape(names[f]) for f in groups.shared.tolist()) or "none"
    return (
        f"<p>{first} is {abs(difference):.2f} {'above' if difference >= 0 else 'below'} {second}.</p>"
        f"<p>Only {first}: {listed(groups.only_a)}.<br>Only {second}: {listed(groups.only_b)}.<br>Both: {both}.</p>"
    )


def firing_html(
    maps: Float[np.ndarray, "n g g"],
    place: tuple[int, int],
    names: Sequence[str],
    of_class: Bool[np.ndarray, "n"],
    count: int = 6,
) -> str:
    """The features that fire most at a patch (row, column), each with its share of the maximum of its map."""
    row, column = place
    here = np.abs(maps[:, row, column])
    share = here / np.maximum(np.abs(maps).max((1, 2)), 1e-12)
    lines = "".join(
        f"<li>{html.escape(names[f])}: {100 * share[f]:.0f} % of its maximum in this picture"
        f"{' (of the class shown)' if of_class[f] else ''}</li>"
        for f in np.argsort(-here, kind="stable")[:count].tolist()
        if here[f] > 0
    )
    return f"<ul>{lines}</ul>" if lines else "<p>No feature fires here.</p>"
