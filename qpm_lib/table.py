"""The published comparison table for any runs: rows are methods, columns are measures, cells mean and spread over seeds."""

import csv
import io
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes

from qpm_lib.artifacts import read_json, write_atomically
from qpm_lib.config import RunConfig, config_from_dict, dotted, stage_key
from qpm_lib.metrics.evaluation import MEASURES
from qpm_lib.plotting import PALETTE
from qpm_lib.runs import RunFolder

METHODS = {"linear_probe": "CLS linear probe", "dense": "dense model", "sldd": "SLDD", "qsenn": "Q-SENN", "qpm": "QPM"}
_STAGES = {"linear_probe": "features", "dense": "dense"}
_PLAIN = ("structural_grounding", "attribute_alignment")
# DINO-QPM (arXiv 2604.07166), table 1, in percent: accuracy, plausibility, SID@5, class-independence, contrastiveness; None is not given.
_PUBLISHED_MEASURES = ("accuracy", "plausibility", "sid", "class_independence", "contrastiveness")
PUBLISHED: dict[str, dict[str, tuple[float | None, ...]]] = {
    "CUB-200-2011": {
        "CLS linear probe (DINOv2)": (87.9, 42.6, 50.9, 99.2, 59.2),
        "dense model (DINOv2)": (78.1, 32.7, 91.8, 98.8, 84.5),
        "dense model (ResNet-50)": (83.9, 60.7, 57.1, 98.0, 74.6),
        "QPM (ResNet-50)": (82.9, 82.9, 89.6, 96.8, 93.6),
        "SLDD (DINOv2)": (84.6, 78.0, 88.7, 94.4, 93.0),
        "Q-SENN (DINOv2)": (85.4, 86.0, 91.5, 93.6, 94.4),
        "QPM (DINOv2)": (88.3, 95.0, 90.1, 93.7, 100.0),
    },
    "Stanford Cars": {
        "CLS linear probe (DINOv2)": (91.7, None, 51.5, 99.1, 60.9),
        "dense model (DINOv2)": (92.9, None, 93.1, 98.7, 82.8),
        "dense model (ResNet-50)": (92.5, None, 51.5, 97.9, 75.1),
        "QPM (ResNet-50)": (92.1, None, 88.2, 97.8, 97.1),
        "SLDD (DINOv2)": (92.9, None, 90.9, 93.9, 94.9),
        "Q-SENN (DINOv2)": (93.3, None, 92.6, 94.0, 94.9),
        "QPM (DINOv2)": (94.0, None, 91.7, 93.7, 100.0),
    },
}


class Cell(NamedTuple):
    """Mean over seeds, sample standard deviation (0 for one seed), number of seeds; why there is none where mean is None.

    `interval` is given for single runs only.
    """

    mean: float | None
    spread: float
    seeds: int
    note: str = ""
    interval: tuple[float, ...] = ()


@dataclass(frozen=True)
class Row:
    """One method with one set of settings: a cell for every measure."""

    data: str
    method: str
    label: str
    cells: dict[str, Cell]


def read_runs(folders: Sequence[Path]) -> list[tuple[RunConfig, dict[str, Any]]]:
    """Settings and measures of finished runs.

    Raises
    ------
    ValueError : for a folder that holds no finished run, or one whose measures were made with other settings.
    """
    runs = []
    for folder in folders:
        if not (folder / "config.json").exists():
            raise ValueError(f"{folder} holds no finished run (config.json is missing): finish it with qpm run --out {folder}")
        run = RunFolder(folder, config_from_dict(read_json(folder / "config.json")))
        runs.append((run.config, run.load_metrics()))
    return runs


def _cell(measure: str, results: Sequence[dict[str, Any]]) -> Cell:
    values = [r["values"].get(measure) for r in results]
    known = [v for v in values if v is not None]
    notes = [r["notes"].get(measure, "not measured") for r, v in zip(results, values, strict=True) if v is None]
    if not known:
        return Cell(None, 0.0, 0, notes[0])
    return Cell(float(np.mean(known)), float(np.std(known, ddof=1)) if len(known) > 1 else 0.0, len(known), notes[0] if notes else "")


def table(runs: Sequence[tuple[RunConfig, dict[str, Any]]]) -> list[Row]:
    """Rows in the order of the published table. Runs that differ in nothing but the seed are one row.

    The linear probe and the dense model of several runs count once where their settings and seed are the same. Where one method comes
    with different settings, the label says which.
    """
    groups: dict[tuple[str, str, str], dict[int, dict[str, Any]]] = {}
    configs: dict[tuple[str, str, str], RunConfig] = {}
    for config, metrics in runs:
        data = stage_key(config, "features")
        for method, result in metrics.items():
            settings = stage_key(replace(config, seed=0), _STAGES.get(method, "model"))
            key = data, method, f"{settings} {config.selection.n_per_class}"  # SID is measured with k
            groups.setdefault(key, {})[config.seed] = result
            configs.setdefault(key, config)
    rows = []
    by_data = {data: config for (data, *_), config in configs.items()}
    differ = _differences(list(by_data.values()), ("data.", "backbone.")) if len(by_data) > 1 else [""]
    names = {
        data: f"{c.data.kind} {Path(c.data.root).name}".strip() + f", backbone {c.backbone.name}" + what
        for (data, c), what in zip(by_data.items(), differ, strict=True)
    }
    for data, name in names.items():
        for method, title in METHODS.items():
            keys = [key for key in groups if key[:2] == (data, method)]
            sections = ("data.", "backbone.", "adapter.", "dense.", "selection.n_per_class") if method in _STAGES else ("",)
            labels = _differences([configs[key] for key in keys], sections) if len(keys) > 1 else [""] * len(keys)
            for key, what in zip(keys, labels, strict=True):
                results = [groups[key][seed] for seed in sorted(groups[key])]
                rows.append(Row(name, method, title + what, {m: _cell(m, results) for m in MEASURES}))
    return rows


def _differences(configs: Sequence[RunConfig], sections: tuple[str, ...] = ("",)) -> list[str]:
    """For each of several settings, those in which they are not all alike; paths as the name of their last part."""
    flat = [{k: Path(v).name if k.endswith((".root", ".weights")) else v for k, v in dotted(asdict(c)).items()} for c in configs]
    keys = [key for key in flat[0] if key != "seed" and key.startswith(sections) and len({str(f[key]) for f in flat}) > 1]
    return [" (" + ", ".join(f"{key}={f[key]}" for key in keys) + ")" for f in flat]


def cell_text(cell: Cell, measure: str) -> str:
    """A cell as text: percent where the measure is a share."""
    if cell.mean is None:
        return "not available"
    scale, digits, unit = (1, 3, "") if measure in _PLAIN else (100, 1, " %")
    spread = f" ± {scale * cell.spread:.{digits}f}" if cell.seeds > 1 else ""
    if cell.interval:
        spread = f" ({scale * cell.interval[0]:.{digits}f} to {scale * cell.interval[1]:.{digits}f})"
    return f"{scale * cell.mean:.{digits}f}{spread}{unit}"


def single_cell(result: dict[str, Any], measure: str) -> Cell:
    """A measure of one run, with its bootstrap interval where there is one."""
    return _cell(measure, [result])._replace(interval=tuple(result["intervals"].get(measure, ())))


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
    parts.append("Mean ± sample standard deviation over seeds. No model was chosen on test pictures.")
    for name, published in PUBLISHED.items():
        lines = [f"| published, {name} | " + " | ".join(MEASURES[m] for m in _PUBLISHED_MEASURES) + " |", "|---" * 6 + "|"]
        lines += [
            f"| {m} | " + " | ".join("not given" if v is None else f"{v:.1f} %" for v in values) + " |" for m, values in published.items()
        ]
        parts.append("\n".join(lines))
    parts.append("Published values: DINO-QPM, arXiv 2604.07166, for reference.")
    return "\n\n".join(parts) + "\n"


def to_csv(rows: Sequence[Row]) -> str:
    """One line per method and measure: data, method, measure, mean, spread, seeds, note; published values at the end."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["source", "data", "method", "measure", "mean", "standard deviation", "seeds", "note"])
    for row in rows:
        for measure, cell in row.cells.items():
            mean = "" if cell.mean is None else f"{cell.mean:.6f}"
            writer.writerow(
                ["measured", row.data, row.label, measure, mean, f"{cell.spread:.6f}" if cell.seeds > 1 else "", cell.seeds, cell.note]
            )
    for data, published in PUBLISHED.items():
        for method, values in published.items():
            for measure, value in zip(_PUBLISHED_MEASURES, values, strict=True):
                writer.writerow(["published", data, method, measure, "" if value is None else f"{value / 100:.4f}", "", "", ""])
    return text.getvalue()


def draw_table(axes: Sequence[Axes], rows: Sequence[Row]) -> Sequence[Axes]:
    """One panel per measure, one dot per row with its spread over seeds; for one data set."""
    for ax, measure in zip(axes, ("accuracy", "plausibility", "sid", "contrastiveness"), strict=True):
        for y, row in enumerate(rows):
            cell = row.cells[measure]
            if cell.mean is None:
                ax.annotate("not available", (0.02, y), xycoords=("axes fraction", "data"), va="center", fontsize=7, color="grey")
                continue
            colour = PALETTE[list(METHODS).index(row.method) % len(PALETTE)]
            ax.errorbar(100 * cell.mean, y, xerr=100 * cell.spread, fmt="o", color=colour, capsize=3)
            ax.annotate(f"{100 * cell.mean:.1f}", (100 * cell.mean, y), xytext=(0, 6), textcoords="offset points", ha="center", fontsize=7)
        ax.set(title=MEASURES[measure], xlabel="%", ylim=(len(rows) - 0.4, -0.6))
        ax.set_yticks(range(len(rows)), [row.label for row in rows] if ax is axes[0] else [""] * len(rows))
        ax.title.set_fontsize(9)
        ax.grid(axis="x", alpha=0.3)
        ax.margins(x=0.25)
    return axes


def save_figure(rows: Sequence[Row], path: Path) -> None:
    """Draw the first data set's rows into a PNG."""
    from matplotlib.figure import Figure

    shown = [row for row in rows if row.data == rows[0].data]
    figure = Figure(figsize=(11, 0.45 * len(shown) + 1.4), layout="constrained")
    draw_table(list(figure.subplots(1, 4)), shown)
    figure.suptitle(shown[0].data, fontsize=10)
    write_atomically(path, lambda temporary: figure.savefig(temporary, dpi=110, format="png"))
