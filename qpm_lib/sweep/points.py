"""The points of a sweep: settings from grids and a plan file, checked before anything starts."""

import csv
import re
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import NamedTuple

from qpm_lib.core import RunConfig, content_hash, load_profile


class Point(NamedTuple):
    """One run of a sweep: the name of its folder, what makes it differ from the others, and all its settings."""

    name: str
    settings: dict[str, str]
    config: RunConfig


def read_points(
    profile: str,
    *,
    common: Mapping[str, str] | None = None,
    grid: Mapping[str, Sequence[str]] | None = None,
    plan: Path | None = None,
) -> list[Point]:
    """All combinations of a grid, for each line of a plan.

    Parameters
    ----------
    common : settings of every point. grid : values of each varied setting. plan : a CSV file with settings as its
        columns and a line for each point; empty cells change nothing.

    Raises
    ------
    ValueError : for an unknown setting, a value that does not fit (the point or the line is named), a line of another
        length than the head, or two points with equal settings.
    """
    common, grid = dict(common or {}), dict(grid or {})
    if twice := [key for key in grid if key in common]:
        raise ValueError(f"{twice[0]} is set for all points and varied as well: leave one out")
    lines = _read_plan(plan) if plan else [("", {})]
    points: list[Point] = []
    known: dict[RunConfig, str] = {}
    for place, line in lines:
        if both := [key for key in grid if key in line]:
            raise ValueError(f"{place}{both[0]} is a column of the plan and varied by --grid as well: leave one out")
        for values in product(*grid.values()):
            settings = {**line, **dict(zip(grid, values, strict=True))}
            told = place or (_told(settings) + ": " if settings else "")
            try:
                config = load_profile(profile, **{**common, **settings})
            except ValueError as error:
                raise ValueError(f"{told}{error}") from error
            if config in known:
                raise ValueError(f"{told}the same settings as {known[config]}: leave one out")
            known[config] = told.rstrip(": ") or "the only point"
            points.append(Point(_name(settings), settings, config))
    return points


def _read_plan(path: Path) -> list[tuple[str, dict[str, str]]]:
    """Lines of a plan, each with its place for messages."""
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            rows = list(csv.reader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"the plan {path} cannot be read ({error}): give a CSV file") from error
    filled = [(number, row) for number, row in enumerate(rows, 1) if any(cell.strip() for cell in row)]
    if len(filled) < 2:
        raise ValueError(f"the plan {path} holds no point: its first line names settings, each further one is a point")
    (_, head), *body = filled
    names = [name.strip() for name in head]
    if len(set(names)) < len(names) or not all(names):
        raise ValueError(f"{path}, line {filled[0][0]}: every column needs a name of its own, not {', '.join(names)}")
    for number, row in body:
        if len(row) != len(names):
            raise ValueError(f"{path}, line {number}: {len(row)} values for {len(names)} columns")
    return [
        (f"{path}, line {number}: ", {n: v.strip() for n, v in zip(names, row, strict=True) if v.strip()})
        for number, row in body
    ]


def _told(settings: Mapping[str, str]) -> str:
    return ", ".join(f"{key}={value}" for key, value in settings.items())


def _name(settings: Mapping[str, str]) -> str:
    """A folder name that can be read, and a hash that makes it the only one."""
    words = [f"{key.rpartition('.')[2]}-{value}" for key, value in settings.items()]
    readable = re.sub(r"[^A-Za-z0-9.=_-]+", "-", "_".join(words))[:80].strip("-.") or "point"
    return f"{readable}-{content_hash(dict(settings))[:6]}"
