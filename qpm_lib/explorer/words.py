"""What the explorer says in words and bars, as HTML: values for the sentences of `templates/words.html`. Titles,
alternative texts and the line of the score are in `reasons.py`.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float

from qpm_lib.core import templates
from qpm_lib.explain import Comparison


def said(macro: str, *values: object) -> str:
    """A sentence of `templates/words.html` with its values, escaped."""
    return str(getattr(templates("explorer").get_template("words.html").module, macro)(*values))


def words_html(title: str, answer: str, score: float, truth: str | None, places: Sequence[tuple[str, str]]) -> str:
    """What a picture shows, in words: the answer with its score, the truth where it is known,
    and where each feature lies.
    """
    return said("words", title, answer, score, truth, places)


def bar_html(value: float, longest: float, colour: str) -> str:
    """A contribution as a bar with its number; negative ones are hatched."""
    return said("bar", value, round(55 * abs(value) / longest), colour)


def comparison_html(
    classes: tuple[str, str],
    groups: Comparison,
    added: Float[np.ndarray, "n"],
    names: Sequence[str],
    difference: float,
    constants: float,
) -> str:
    """Two classes in words: which features only one of them has, with what each adds to the difference of scores,
    and what the constants of the classes add.
    """
    return said("comparison", *classes, groups, names, added, difference, constants)


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
    order = [f for f in np.argsort(-here, kind="stable")[:count].tolist() if here[f] > 0]
    return said("firing", [(names[f], round(100 * float(share[f])), bool(of_class[f])) for f in order])


def users_html(names: Sequence[str], count: int = 12) -> str:
    """The classes that use a feature, the first of them by name."""
    return said("users", names[:count], len(names))
