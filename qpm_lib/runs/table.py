"""One table of any finished runs, laid out as the published comparison: rows are methods, columns are measures, cells
mean and spread over seeds. The published numbers themselves stand in `published.py`.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from qpm_lib.core import METHODS, RunConfig, config_from_dict, dotted, read_object, stage_key
from qpm_lib.metrics import MEASURES
from qpm_lib.runs.folder import RunFolder

_STAGES = {"linear_probe": "features", "dense": "dense"}


class Cell(NamedTuple):
    """Mean over seeds, sample standard deviation (0 for one seed), number of seeds; why there is none where mean is
    None.

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
            raise ValueError(
                f"{folder} holds no finished run (config.json is missing): finish it with qpm run --out {folder}"
            )
        run = RunFolder(folder, config_from_dict(read_object(folder / "config.json")))
        runs.append((run.config, run.load_metrics()))
    return runs


def _cell(measure: str, results: Sequence[dict[str, Any]]) -> Cell:
    values = [r["values"].get(measure) for r in results]
    known = [v for v in values if v is not None]
    notes = [r["notes"].get(measure, "not measured") for r, v in zip(results, values, strict=True) if v is None]
    if not known:
        return Cell(None, 0.0, 0, notes[0])
    return Cell(
        float(np.mean(known)),
        float(np.std(known, ddof=1)) if len(known) > 1 else 0.0,
        len(known),
        notes[0] if notes else "",
    )


def table(runs: Sequence[tuple[RunConfig, dict[str, Any]]]) -> list[Row]:
    """Rows in the order of the published table. Runs that differ in nothing but the seed are one row.

    The linear probe and the dense model of several runs count once where their settings and seed are the same.
    Where one method comes with different settings, the label says which.
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
            sections = (
                ("data.", "backbone.", "adapter.", "dense.", "selection.n_per_class") if method in _STAGES else ("",)
            )
            labels = _differences([configs[key] for key in keys], sections) if len(keys) > 1 else [""] * len(keys)
            for key, what in zip(keys, labels, strict=True):
                results = [groups[key][seed] for seed in sorted(groups[key])]
                rows.append(Row(name, method, title + what, {m: _cell(m, results) for m in MEASURES}))
    return rows


def _differences(configs: Sequence[RunConfig], sections: tuple[str, ...] = ("",)) -> list[str]:
    """For each of several settings, those in which they are not all alike; paths as the name of their last part."""
    flat = [
        {k: Path(v).name if k.endswith((".root", ".weights")) else v for k, v in dotted(asdict(c)).items()}
        for c in configs
    ]
    keys = [
        key for key in flat[0] if key != "seed" and key.startswith(sections) and len({str(f[key]) for f in flat}) > 1
    ]
    return [" (" + ", ".join(f"{key}={f[key]}" for key in keys) + ")" for f in flat]


def single_cell(result: dict[str, Any], measure: str) -> Cell:
    """A measure of one run, with its bootstrap interval where there is one."""
    return _cell(measure, [result])._replace(interval=tuple(result["intervals"].get(measure, ())))
