"""The readable card of a model as text, and the rows of its features, which are renamed in it later."""

import re
from collections.abc import Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

from qpm_lib.core import templates

if TYPE_CHECKING:
    from jinja2 import Template
    from markupsafe import Markup

_ROW = re.compile(r"^\| .* \| (.*) \| !\[.*\]\(examples/feature_(\d+)\.jpg\) \|$", re.MULTILINE)

_PLACES = re.compile(r"^\| places of features \| .* \|$", re.MULTILINE)


def markdown(name: str) -> "Markup":
    """A name as plain text in a table of Markdown."""
    from markupsafe import Markup, escape

    plain = escape(" ".join(name.replace("|", "/").split())).replace("&#39;", "'").replace("&#34;", '"')
    return Markup(re.sub(r"([\\`\[\]])", r"\\\1", plain))  # noqa: S704 - escaped above


def feature_row(f: int, name: str, users: str) -> str:
    """The row of feature f; `users` is the text of its second column."""
    return f"| {markdown(name)} | {users} | ![{markdown(name)}](examples/feature_{f:02d}.jpg) |"


def _row(f: int, name: str, users: Sequence[str], more: int) -> "Markup":
    from markupsafe import Markup

    listed = ", ".join(map(markdown, users)) or "none"
    return Markup(feature_row(f, name, listed + (f" and {more} more" if more > 0 else "")))  # noqa: S704 - escaped


@cache
def _template() -> "Template":
    environment = templates("model").overlay()
    environment.filters = {**environment.filters, "markdown": markdown}
    environment.globals = {**environment.globals, "row": _row}
    return environment.get_template("card.md")


def card_text(**facts: Any) -> str:
    """The card with its facts (see `templates/card.md`)."""
    return _template().render(facts)


def without_pictures(card: str) -> str:
    """The same card without the pictures of its features, where these do not go along with it."""
    card = _ROW.sub(lambda row: row[0].rpartition(" | ")[0] + " |", card)
    card = card.replace("| strongest on |\n|---|---|---|", "|\n|---|---|")
    return card.replace("Pictures are the training pictures on which the feature is strongest. ", "")


def locality_text(found: Mapping[str, float] | None) -> str:
    """What is known of the places that features show, in one sentence."""
    if found is None:
        return "not measured (chapter 6 does)"
    kept, elsewhere, area = (f"{100 * found[name]:.0f} %" for name in ("kept", "kept_random", "area"))
    return (
        f"{kept} of a feature's value is left when only the place it shows is kept ({area} of the picture; {elsewhere} "
        f"for places of the same shape elsewhere; {found['pictures']:.0f} pictures for each feature on average)"
    )


def with_locality(card: str, found: Mapping[str, float]) -> str:
    """The same card with what is known of the places that features show."""
    return _PLACES.sub(lambda _: f"| places of features | {locality_text(found)} |", card)


def with_names(card: str, names: Sequence[str]) -> str:
    """The same card with other names of the features; all else stays."""
    return _ROW.sub(lambda row: feature_row(int(row[2]), names[int(row[2])], row[1]), card)
