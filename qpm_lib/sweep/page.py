"""What a sweep leaves beside its run folders: a page that links all reports, and results against settings."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from qpm_lib.core import METHODS, dotted, read_object, write_atomically
from qpm_lib.metrics import MEASURES
from qpm_lib.plotting import PALETTE, new_figure
from qpm_lib.report import write_page
from qpm_lib.runs import cell_text, single_cell
from qpm_lib.sweep.points import Point

_SHOWN = ("accuracy", "plausibility", "sid", "contrastiveness")


def sweep_page(points: Sequence[Point], out: Path, failed: Mapping[str, str]) -> Path:
    """Write `index.html` and, where points differ in a setting, `settings.png`; returns the page."""
    measured = [_measures(out / point.name, point) for point in points]
    varied = list(dict.fromkeys(key for point in points for key in point.settings))
    figure = _figure(points, measured, varied)
    if figure:
        write_atomically(out / "settings.png", lambda place: figure.savefig(place, dpi=110, format="png"))
    rows = [
        {
            "name": point.name,
            "settings": [point.settings.get(key, "") for key in varied],
            "cells": [cell_text(single_cell(found, m)._replace(interval=()), m) if found else "" for m in _SHOWN],
            "error": failed.get(point.name, ""),
            "report": (out / point.name / "report" / "index.html").exists(),
        }
        for point, found in zip(points, measured, strict=True)
    ]
    values = {"rows": rows, "varied": varied, "measures": [MEASURES[m] for m in _SHOWN], "figure": bool(figure)}
    return write_page("sweep.html", "Sweep", out, **values)


def _measures(folder: Path, point: Point) -> dict[str, Any] | None:
    """What was measured of the finished model of a point."""
    try:
        return read_object(folder / "metrics.json")["models"][point.config.selection.method]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _figure(points: Sequence[Point], measured: Sequence[dict[str, Any] | None], varied: Sequence[str]) -> Figure | None:
    """Small multiples: a row for each measure, a column for each setting, a dot for each point, coloured by method."""
    there = [(point, found) for point, found in zip(points, measured, strict=True) if found]
    if not varied or not there:
        return None
    figure = new_figure((1.5 + 2.6 * len(varied), 1.9 * len(_SHOWN)), layout="constrained")
    axes = figure.subplots(len(_SHOWN), len(varied), squeeze=False, sharey="row", sharex="col")
    for column, key in enumerate(varied):
        values = [dotted(asdict(point.config))[key] for point, _ in there]
        numbers = all(isinstance(v, int | float) and not isinstance(v, bool) for v in values)
        ticks = sorted(set(values)) if numbers else list(dict.fromkeys(map(str, values)))
        for row, measure in enumerate(_SHOWN):
            ax = axes[row, column]
            for (point, found), value in zip(there, values, strict=True):
                y = found["values"].get(measure)
                method = point.config.selection.method
                colour = PALETTE[list(METHODS).index(method) % len(PALETTE)]
                if y is not None:
                    place = ticks.index(value if numbers else str(value))
                    ax.plot(place, 100 * y, "o", color=colour, alpha=0.7, markersize=5)
            ax.grid(alpha=0.3)
            if column == 0:
                ax.set_ylabel(f"{MEASURES[measure]}\n(%)", fontsize=8)
        axes[-1, column].set_xticks(range(len(ticks)), list(map(str, ticks)), fontsize=8)
        axes[-1, column].set_xlim(-0.5, len(ticks) - 0.5)
        axes[-1, column].set_xlabel(key, fontsize=9)
    methods = dict.fromkeys(point.config.selection.method for point, _ in there)
    for method in methods:
        axes[0, 0].plot([], [], "o", color=PALETTE[list(METHODS).index(method) % len(PALETTE)], label=METHODS[method])
    figure.legend(loc="outside upper center", ncols=len(methods), fontsize=8)
    return figure
