"""Every method on every model, measure by measure; what is measured is kept, so that a stopped comparison goes on."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from jaxtyping import Float

from qpm_lib.backbones import state_hash
from qpm_lib.comparison.case import EXACT, Build, Case
from qpm_lib.comparison.cost import Cost, cost_of, where
from qpm_lib.comparison.kept import Kept
from qpm_lib.comparison.measures import COST, Unit, chosen, units
from qpm_lib.comparison.result import Comparison, Shown
from qpm_lib.core import progress
from qpm_lib.explain import METHODS, LearnedRanking
from qpm_lib.metrics import Scores

_CHUNK, _SIDE = 16, 160
_EXPLAINED = "done/maps"


def compare(
    cases: Sequence[Case],
    *,
    methods: Sequence[str] | None = None,
    measures: Sequence[str] | None = None,
    extra: Mapping[str, Build] | None = None,
    holes: int | None = None,
    shown: int = 6,
) -> Comparison:
    """Explain the predicted class of every picture (and its rival) by every method, and measure the maps.

    Maps and scores of the methods of `explain.METHODS` are kept in the cache folder by model and pictures: a stopped
    call goes on, and one with more measures takes only those.

    Parameters
    ----------
    methods : names in `explain.METHODS`, or `exact_answer`; None takes all that a model allows.
    measures : names in `MEASURES`, kinds of them, and `cost`; None is all.
    extra : own methods by name, each made from a `Target`; they are not kept.
    holes : pictures on which patches are taken away (by far the slowest measures), all without it.
    shown : pictures whose maps are kept in the result, to be looked at.

    Raises
    ------
    ValueError : for no cases, an unknown method or measure, a method that no model allows, measures that no model and
        picture allows, or maps that are no maps.
    """
    if not cases:
        raise ValueError("no model was given to compare: see open_cases")
    wanted, extra = chosen(None if measures is None else tuple(measures)), dict(extra or {})
    _check_names(cases, methods, extra)
    found = [_builds(case, methods, extra) for case in cases]
    asked = [units(case, wanted) for case in cases]
    if not any(asked) and COST not in wanted:
        raise ValueError(f"none of these models and pictures allows {', '.join(wanted)}: choose other measures")
    todo = [(i, name, unit) for i, builds in enumerate(found) for name in builds for unit in (None, *asked[i])]
    kept: dict[tuple[int, str], Kept] = {}
    for i, name, unit in progress(todo, "methods x measures"):
        case, build = cases[i], found[i][name]
        if unit is not None:
            _measure(case, build, unit, kept[i, name], unit.on(len(case.images), holes))
            continue
        kept[i, name] = Kept("" if name in extra else case.key, _file(case, name, build))
        if COST in wanted:
            _price(case, build, kept[i, name])
        _explain(case, name, build, kept[i, name])
    on = {name: unit.on(len(cases[0].images), holes) for case in asked for unit in case for name in unit.names}
    return _result(cases, kept, {name: on[name] for name in wanted if name in on}, shown)


def check_methods(names: Sequence[str] | None) -> None:
    """Refuse names that are no methods, before hours of work.

    Raises
    ------
    ValueError : naming the first of them, and those that there are.
    """
    for name in names or ():
        if name not in METHODS and name != EXACT:
            raise ValueError(f"unknown explanation method {name!r}: choose from {', '.join((*METHODS, EXACT))}")


def _check_names(cases: Sequence[Case], methods: Sequence[str] | None, extra: Mapping[str, Build]) -> None:
    check_methods(methods)
    for name in extra:
        if name in METHODS or name == EXACT or "/" in name:
            raise ValueError(f"an own method cannot be called {name!r}: choose a name without / that is not taken")
    there = dict.fromkeys(n for case in cases for n in _builds(case, None, {}))
    for name in methods or ():
        if name not in there:
            raise ValueError(f"no model allows method {name!r}: choose from {', '.join(there)}")


def _builds(case: Case, methods: Sequence[str] | None, extra: Mapping[str, Build]) -> dict[str, Build | None]:
    """How to make the methods that are wanted of a case; the exact answer needs none."""
    there: dict[str, Build | None] = dict(case.methods())
    if case.truths is not None:
        there[EXACT] = None
    return {**{name: build for name, build in there.items() if methods is None or name in methods}, **extra}


def _file(case: Case, name: str, build: Build | None) -> str:
    """Name of the file: a trained explainer is another method each time that it is trained."""
    if name != "ranking" or build is None:
        return name
    method = build(case.target)
    return f"{name}-{state_hash(method.decoder.state_dict())[:16]}" if isinstance(method, LearnedRanking) else name


def _price(case: Case, build: Build | None, entry: Kept) -> None:
    """Measure the cost, unless it was measured on this machine."""
    if build is not None and entry.card.get("priced") != where(case):
        entry.add({}, priced=where(case), cost=list(cost_of(case, build(case.target))))


def _explain(case: Case, name: str, build: Build | None, entry: Kept) -> None:
    """Make the maps that are missing, some pictures at a time."""
    count, grid = len(case.images), case.target.grid
    done = entry.arrays.get(_EXPLAINED, np.zeros(count, bool))
    if done.all():
        return
    if build is None:
        entry.add({"maps": case.exact_maps().astype(np.float32), _EXPLAINED: np.ones(count, bool)})
        return
    method = build(case.target)
    for start in range(0, count, _CHUNK):
        some = np.arange(start, min(start + _CHUNK, count))
        if done[some].all():
            continue
        images = [case.images[i] for i in some for _ in range(2)]  # some methods try a picture for both classes at once
        asked = torch.stack([case.labels[some], case.rivals[some]], 1).flatten()
        found = torch.as_tensor(method(images, asked)).detach().float().cpu()
        if found.shape != (len(images), grid, grid) or not found.isfinite().all():
            raise ValueError(
                f"{name} gave maps of shape {tuple(found.shape)} with {int((~found.isfinite()).sum())} values that are "
                f"not finite, and not ({len(images)}, {grid}, {grid}), for {case.model}: leave it out, or mend it"
            )
        maps = entry.arrays.get("maps", np.zeros((count, 2, grid, grid), np.float32)).copy()
        maps[some], done = found.unflatten(0, (-1, 2)).numpy(), done.copy()
        done[some] = True
        entry.add({"maps": maps, _EXPLAINED: done})


def _measure(case: Case, build: Build | None, unit: Unit, entry: Kept, on: np.ndarray) -> None:
    """Take measures on the pictures that lack them, some at a time."""
    count, done = len(case.images), f"done/{unit.names[0]}"
    missing = on[~entry.arrays.get(done, np.zeros(count, bool))[on]]
    for start in range(0, len(missing), _CHUNK):
        some = missing[start : start + _CHUNK]
        new = {done: entry.arrays.get(done, np.zeros(count, bool)).copy()}
        new[done][some] = True
        for name, scores in unit.take(case, entry.arrays["maps"], some, build).items():
            new[name] = entry.arrays.get(name, np.full((3, count), np.nan)).copy()
            new[name][:, some] = scores
        entry.add(new)


def _result(
    cases: Sequence[Case], kept: Mapping[tuple[int, str], Kept], on: Mapping[str, np.ndarray], shown: int
) -> Comparison:
    of = {model: [i for i, case in enumerate(cases) if case.model == model] for model in (c.model for c in cases)}
    scores: dict[tuple[str, str], dict[str, Scores]] = {}
    costs: dict[tuple[str, str], Cost] = {}
    for model, numbers in of.items():
        for name in dict.fromkeys(name for i, name in kept if i in numbers):
            entries = [kept.get((i, name)) for i in numbers]
            scores[model, name] = _scores(entries, on, len(cases[0].images))
            here = [entry for entry in entries if entry is not None and entry.card.get("priced") == where(cases[0])]
            costs |= {(model, name): Cost(*here[0].card[COST])} if here else {}
    seeds = {model: tuple(cases[i].seed for i in numbers) for model, numbers in of.items()}
    some = np.unique(np.linspace(0, len(cases[0].images) - 1, shown).astype(int)) if shown else np.zeros(0, int)
    return Comparison(scores, costs, seeds, len(cases[0].images), _shown(cases, kept, some))


def _scores(entries: Sequence[Kept | None], on: Mapping[str, np.ndarray], pictures: int) -> dict[str, Scores]:
    """Scores by measure, a row for each seed; NaN for a seed whose model does not have the method, and for pictures
    that this comparison does not ask for, though an earlier one did.
    """
    found = {}
    for measure, some in on.items():
        rows = [None if entry is None else entry.arrays.get(measure) for entry in entries]
        if any(row is not None for row in rows):
            stacked = np.full((3, len(rows), pictures), np.nan)
            for i, row in enumerate(rows):
                if row is not None:
                    stacked[:, i, some] = row[:, some]
            found[measure] = Scores(*stacked)
    return found


def _shown(cases: Sequence[Case], kept: Mapping[tuple[int, str], Kept], some: np.ndarray) -> Shown:
    """Pictures and maps of the first seed of each model."""
    maps: dict[tuple[str, str], Float[np.ndarray, "shown g g"]] = {}
    told: dict[str, list[str]] = {}
    for i, case in enumerate(cases):
        if case.model in told:
            continue
        told[case.model] = [case.class_names[int(case.labels[j])] for j in some]
        maps |= {(case.model, name): entry.arrays["maps"][some, 0] for (k, name), entry in kept.items() if k == i}
    square = cases[0].target.backbone.square
    pictures = [np.asarray(square(cases[0].images[j], _SIDE)) for j in some]
    side = (0, _SIDE, _SIDE, 3)
    return Shown(np.stack(pictures) if pictures else np.zeros(side, np.uint8), cases[0].rows[some], told, maps)
