"""What a comparison found: scores of every method on every model, what they cost, and some maps to look at."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int, UInt8

from qpm_lib.comparison.case import EXACT
from qpm_lib.comparison.cost import Cost
from qpm_lib.comparison.measures import MEASURES
from qpm_lib.core import save_arrays, saved_arrays
from qpm_lib.explain import METHODS
from qpm_lib.metrics import Difference, Estimate, Scores, agreement_over_methods, differences, mean_score


@dataclass(frozen=True)
class Shown:
    """Some pictures and the maps of every method for the predicted class, of the first seed of each model.

    Attributes
    ----------
    pictures : squares. rows : of the data set. told : by model, the predicted class of each. maps : by model and
        method.
    """

    pictures: UInt8[np.ndarray, "shown side side 3"]
    rows: Int[np.ndarray, "shown"]
    told: Mapping[str, list[str]]
    maps: Mapping[tuple[str, str], Float[np.ndarray, "shown g g"]]


def method_title(name: str) -> str:
    """Name of a method for tables and figures."""
    return "exact answer" if name == EXACT else METHODS[name].title if name in METHODS else name


def knows_nothing(name: str) -> bool:
    """Whether a method is one of the maps without any idea."""
    return name in METHODS and METHODS[name].uninformed


@dataclass(frozen=True)
class Comparison:
    """Scores by model, method and measure.

    Attributes
    ----------
    scores : by model and method, then by measure. costs : by model and method. seeds : by model, in the order of the
        rows of its scores. pictures : how many.
    """

    scores: Mapping[tuple[str, str], Mapping[str, Scores]]
    costs: Mapping[tuple[str, str], Cost]
    seeds: Mapping[str, tuple[int, ...]]
    pictures: int
    shown: Shown
    _made: dict[tuple[str, ...], Any] = field(default_factory=dict, init=False, repr=False, compare=False)

    @property
    def models(self) -> tuple[str, ...]:
        """Names of the models."""
        return tuple(self.seeds)

    def methods(self, model: str, *, real: bool = False) -> list[str]:
        """Methods that were measured on a model; with `real`, without the exact answer and maps that know nothing."""
        own = [name for m, name in self.scores if m == model]
        return [name for name in own if not real or (name != EXACT and not knows_nothing(name))]

    def measures(self, model: str) -> list[str]:
        """Measures that some method of a model has."""
        return [m for m in MEASURES if self.column(model, m)]

    def column(self, model: str, measure: str, *, real: bool = False) -> dict[str, Scores]:
        """Scores of one measure by method."""
        found = {name: self.scores[model, name].get(measure) for name in self.methods(model, real=real)}
        return {name: s for name, s in found.items() if s is not None and mean_score(s) is not None}

    def means(self, model: str, measure: str) -> dict[str, Estimate]:
        """Mean over seeds of each method, with a 95 % interval over pictures."""
        return {name: mean_score(scores) for name, scores in self.column(model, measure).items()}

    def differences(self, model: str, measure: str, *, against: str | None = None) -> dict[tuple[str, str], Difference]:
        """All differences between methods, paired and corrected (see `metrics.differences`); no exact answer."""
        if (key := ("differences", model, measure, against or "")) not in self._made:  # asked for by every table
            column = {name: scores for name, scores in self.column(model, measure).items() if name != EXACT}
            self._made[key] = differences(column, against=against)
        return self._made[key]

    def leaders(self, model: str, measure: str) -> list[str]:
        """The method with the highest mean, then those that cannot be told from it (p at least 0.05, corrected for all
        pairs of methods). Only methods that have it on the most pictures and seeds are ranked; none in a measure of
        kind `form`, which is a condition and no race.
        """
        if MEASURES[measure].kind == "form":
            return []
        column = {name: s.there.sum() for name, s in self.column(model, measure).items() if name != EXACT}
        means = self.means(model, measure)
        ranked = [name for name, there in column.items() if there == max(column.values())]
        order = sorted(ranked, key=lambda name: -means[name].value)
        p = {frozenset(pair): found.p for pair, found in self.differences(model, measure).items()}
        return [*order[:1], *(name for name in order[1:] if p[frozenset((order[0], name))] >= 0.05)]

    def agreement(self, model: str) -> dict[tuple[str, str], Estimate]:
        """How well each measure (the first of a pair) puts the real methods into the order of each that is the truth; a
        truth with itself says how much the pictures allow.
        """
        if (key := ("agreement", model)) not in self._made:
            names = self.measures(model)
            truth = [m for m in names if MEASURES[m].kind == "truth"]
            columns = {m: self.column(model, m, real=True) for m in names}
            pairs = {(a, b): agreement_over_methods(columns[b], columns[a]) for a in names for b in truth}
            self._made[key] = {pair: found for pair, found in pairs.items() if found is not None}
        return self._made[key]

    def save(self, folder: Path, *, made_by: str = "") -> None:
        """Write `comparison.safetensors` and, last, `comparison.json`."""
        arrays: dict[str, np.ndarray] = {"pictures": self.shown.pictures, "rows": self.shown.rows.astype(np.int64)}
        for (model, name), found in self.scores.items():
            arrays |= {f"score/{model}/{name}/{m}": np.stack(s).astype(np.float32) for m, s in found.items()}
        arrays |= {f"map/{model}/{name}": maps.astype(np.float32) for (model, name), maps in self.shown.maps.items()}
        costs = [[model, name, *cost] for (model, name), cost in self.costs.items()]
        card = {"made_by": made_by, "count": self.pictures, "seeds": self.seeds, "told": self.shown.told}
        methods = [list(pair) for pair in self.scores]
        save_arrays(folder, "comparison", arrays, {**card, "methods": methods, "costs": costs})

    @classmethod
    def load(cls, folder: Path) -> "Comparison":
        """Read a folder that `save` wrote.

        Raises
        ------
        ValueError : when there is none, or it is damaged.
        """
        with saved_arrays(folder, "comparison", what="comparison", chapter="11") as (arrays, card):
            scores: dict[tuple[str, str], dict[str, Scores]] = {(m, n): {} for m, n in card["methods"]}
            maps = {}
            for key, found in arrays.items():
                kind, _, rest = key.partition("/")
                if kind == "score":
                    model, name, measure = rest.split("/")
                    scores[model, name][measure] = Scores(*found.astype(np.float64))
                elif kind == "map":
                    model, name = rest.split("/")
                    maps[model, name] = found
            costs = {(model, name): Cost(*cost) for model, name, *cost in card["costs"]}
            seeds = {model: tuple(found) for model, found in card["seeds"].items()}
            shown = Shown(arrays["pictures"], arrays["rows"], dict(card["told"]), maps)
            made = cls(scores, costs, seeds, int(card["count"]), shown)
            if any(s.values.shape[1] != made.pictures for found in scores.values() for s in found.values()):
                raise ValueError("the scores do not fit the pictures")
        return made
