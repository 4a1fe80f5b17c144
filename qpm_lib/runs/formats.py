"""The comparison table as Markdown, as CSV and as a figure."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from qpm_lib.core import METHODS, write_atomically
from qpm_lib.metrics import MEASURES
from qpm_lib.plotting import PALETTE, new_figure
from qpm_lib.runs.published import PUBLISHED, PUBLISHED_MEASURES
from qpm_lib.runs.table import Cell, Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_PLAIN = ("structural_grounding", "attribute_alignment")


def cell_text(cell: Cell, measure: str) -> str:
    """A cell as text: percent where the measure is a share."""
    if cell.mean is None:
        return "not available"
    scale, digits, unit = (1, 3, "") if measure in _PLAIN else (100, 1, " %")
    spread = f" ± {scale * cell.spread:.{digits}f}" if cell.seeds > 1 else ""
    if cell.interval:
        spread = f" ({scale * cell.interval[0]:.{digits}f} to {scale * cell.interval[1]:.{digits}f})"
    return f"{scale * cell.mean:.{digits}f}{spread}{unit}"


def to_markdown(rows: Sequence[Row]) -> str:
    """The table, footnotes for what is not available, and the published values for reference."""
    parts, notes = [], []
    for data in dict.fromkeys(row.data for row in rows):
        chosen = [row for row in rows if row.data == data]
        lines = ["| method | seeds | " + " | ".join(MEASURES.values()) + " |", "|---" * (len(MEASURES) + 2) + "|"]
        for row in chosen:
            texts = []
            for measure, cell in row.cells.items():
                text = cell_text(cell, measure)
                if cell.note:
                    if cell.note not in notes:
                        notes.append(cell.note)
                    text += f" [{notes.index(cell.note) + 1}]"
                texts.append(text)
            lines.append(f"| {row.label} | {row.cells['accuracy'].seeds} | " + " | ".join(texts) + " |")
        parts.append(f"**{data}**\n\n" + "\n".join(lines))
    parts += [f"[{i}] {note}." for i, note in enumerate(notes, 1)]
    parts.append(
        "Mean ± sample standard deviation over seeds. No epoch and no model was chosen on test pictures; settings of "
        "profile toy were (benchmarks/README.md)."
    )
    for name, published in PUBLISHED.items():
        lines = [
            f"| published, {name} | " + " | ".join(MEASURES[m] for m in PUBLISHED_MEASURES) + " |",
            "|---" * 6 + "|",
        ]
        lines += [
            f"| {m} | " + " | ".join("not given" if v is None else f"{v:.1f} %" for v in values) + " |"
            for m, values in published.items()
        ]
        parts.append("\n".join(lines))
    parts.append("Published values: DINO-QPM, arXiv 2604.07166, for reference.")
    return "\n\n".join(parts) + "\n"


def to_csv(rows: Sequence[Row]) -> str:
    """One line per method and measure: data, method, measure, mean, spread, seeds, note; then the published values."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["source", "data", "method", "measure", "mean", "standard deviation", "seeds", "note"])
    for row in rows:
        for measure, cell in row.cells.items():
            mean = "" if cell.mean is None else f"{cell.mean:.6f}"
            writer.writerow(
                [
                    "measured",
                    row.data,
                    row.label,
                    measure,
                    mean,
                    f"{cell.spread:.6f}" if cell.seeds > 1 else "",
                    cell.seeds,
                    cell.note,
                ]
            )
    for data, published in PUBLISHED.items():
        for method, values in published.items():
            for measure, value in zip(PUBLISHED_MEASURES, values, strict=True):
                writer.writerow(
                    ["published", data, method, measure, "" if value is None else f"{value / 100:.4f}", "", "", ""]
                )
    return text.getvalue()


def draw_table(axes: Sequence["Axes"], rows: Sequence[Row]) -> Sequence["Axes"]:
    """One panel per measure, one dot per row with its spread over seeds; for one data set."""
    for ax, measure in zip(axes, ("accuracy", "plausibility", "sid", "contrastiveness"), strict=True):
        for y, row in enumerate(rows):
            cell = row.cells[measure]
            if cell.mean is None:
                ax.annotate(
                    "not available",
                    (0.02, y),
                    xycoords=("axes fraction", "data"),
                    va="center",
                    fontsize=7,
                    color="grey",
                )
                continue
            colour = PALETTE[list(METHODS).index(row.method) % len(PALETTE)]
            ax.errorbar(100 * cell.mean, y, xerr=100 * cell.spread, fmt="o", color=colour, capsize=3)
            ax.annotate(
                f"{100 * cell.mean:.1f}",
                (100 * cell.mean, y),
                xytext=(0, 6),
                textcoords="offset points",
                ha="center",
                fontsize=7,
            )
        ax.set(title=MEASURES[measure], xlabel="%", ylim=(len(rows) - 0.4, -0.6))
        ax.set_yticks(range(len(rows)), [row.label for row in rows] if ax is axes[0] else [""] * len(rows))
        ax.title.set_fontsize(9)
        ax.grid(axis="x", alpha=0.3)
        ax.margins(x=0.25)
    return axes


def save_figure(rows: Sequence[Row], path: Path) -> None:
    """Draw the first data set's rows into a PNG."""
    shown = [row for row in rows if row.data == rows[0].data]
    figure = new_figure((11, 0.45 * len(shown) + 1.4), layout="constrained")
    draw_table(list(figure.subplots(1, 4)), shown)
    figure.suptitle(shown[0].data, fontsize=10)
    write_atomically(path, lambda temporary: figure.savefig(temporary, dpi=110, format="png"))
