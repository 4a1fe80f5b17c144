"""The whole course as one picture, with the place of a chapter in it."""

import io
from typing import TYPE_CHECKING

from PIL import Image

from qpm_lib.plotting.colours import PALETTE
from qpm_lib.plotting.figures import new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from matplotlib.patches import FancyBboxPatch

CHAIN = (
    ("picture", "pixels"),
    ("1 tokens", "a vector for\neach patch"),
    ("2 features", "many, each has\nits places"),
    ("3 selection", "few, chosen\nwith a proof"),
    ("4 classifier", "$k$ features\nfor each class"),
    ("5 reasons", "where, and why\nnot another?"),
    ("6 measures", "is it good,\nis it true?"),
    ("7 explorer", "look for\nyourself"),
)
BESIDE = (
    ("8 any classifier", "explain what does\nnot explain itself"),
    ("9 the encoder", "what it groups\nwithout labels"),
    ("10 ranking", "an explainer trained\non the measure"),
    ("11 side by side", "which map can\nbe believed?"),
    ("12 your pictures", "from a folder to\nan explained answer"),
    ("13 how sure", "which classes are\nstill possible?"),
)
_HERE, _DONE, _PALE, _EDGE = PALETTE[5], "#CFE3F1", "#F5F5F5", "#999999"


def you_are_here(chapter: int) -> Image.Image:
    """`course_figure` as a picture, which also the first cell of a chapter shows; figures are shown from the second."""
    buffer = io.BytesIO()
    course_figure(chapter).savefig(buffer, dpi=100)
    return Image.open(buffer)


def course_figure(chapter: int) -> "Figure":
    """The chain from a picture to its explanation, and the chapters beside it; `chapter` is dark, what it builds on is
    blue.

    Parameters
    ----------
    chapter : 1 to 13. A chapter of the chain builds on those before it; those beside it, but for chapter 12, which
        stands alone, build on the chain.

    Raises
    ------
    ValueError : when there is no such chapter.
    """
    if not 1 <= chapter <= len(CHAIN) - 1 + len(BESIDE):
        raise ValueError(f"chapter (={chapter}) must be 1 to {len(CHAIN) - 1 + len(BESIDE)}")
    figure = new_figure((9.5, 2.2))
    ax = figure.add_axes((0, 0, 1, 1))
    before = 1 if chapter == 12 else min(chapter, 5)
    for row, boxes in enumerate((CHAIN, BESIDE)):
        width = len(CHAIN) / len(boxes)
        for q, (title, text) in enumerate(boxes):
            number = q if row == 0 else q + len(CHAIN)
            here, left = number == chapter, q * width
            face = _HERE if here else _DONE if number < before else _PALE
            ink = "white" if here else "black"
            patch = {"facecolor": face, "edgecolor": _HERE if here else _EDGE, "linewidth": 0.8}
            ax.add_patch(_box(left + 0.06, -1.25 * row, width - 0.2, 0.95, patch))
            centre = left + width / 2 - 0.04
            ax.text(centre, 0.74 - 1.25 * row, title, ha="center", va="center", color=ink, fontsize=8, weight="bold")
            ax.text(centre, 0.32 - 1.25 * row, text, ha="center", va="center", color=ink, fontsize=6.5)
            if row == 0 and q:
                arrow = {"arrowstyle": "-|>", "color": _EDGE, "shrinkA": 0, "shrinkB": 0, "mutation_scale": 7}
                ax.annotate("", (left + 0.06, 0.47), (left - 0.14, 0.47), arrowprops=arrow)
    ax.set(xlim=(0, len(CHAIN)), ylim=(-1.3, 1.0))
    ax.set_axis_off()
    return figure


def _box(x: float, y: float, width: float, height: float, style: dict) -> "FancyBboxPatch":
    from matplotlib.patches import FancyBboxPatch

    return FancyBboxPatch((x, y), width, height, boxstyle="round,pad=0,rounding_size=0.06", **style)
