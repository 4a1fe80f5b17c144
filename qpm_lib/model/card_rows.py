"""The table of features in the card of a model: one row each, written by `model_card`, renamed by `DinoQPM.rename_features`."""

import html
import re
from collections.abc import Sequence

_ROW = re.compile(r"^\| .* \| (.*) \| !\[.*\]\(examples/feature_(\d+)\.jpg\) \|$", re.MULTILINE)


def card_text(name: str) -> str:
    """A name as plain text in a table of Markdown."""
    return re.sub(r"([\\`\[\]])", r"\\\1", html.escape(" ".join(name.replace("|", "/").split()), quote=False))


def feature_row(f: int, name: str, users: str) -> str:
    """The row of feature f; `users` is the text of its second column."""
    plain = card_text(name)
    return f"| {plain} | {users} | ![{plain}](examples/feature_{f:02d}.jpg) |"


def with_names(card: str, names: Sequence[str]) -> str:
    """The same card with other names of the features; all else stays."""
    return _ROW.sub(lambda row: feature_row(int(row[2]), names[int(row[2])], row[1]), card)
