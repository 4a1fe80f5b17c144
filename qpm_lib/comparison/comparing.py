"""Every method on every model, measure by measure; what is measured is kept, so that a stopped comparison goes on."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from jaxtyping import Float

from qpm_lib.backbones import state_hash
from qpm_lib.comparison.case import EXACT, Build, Case
from qpm_lib.comparison.cost import Cost, cost_of
from qpm_lib.comparison.kept import Kept
from qpm_lib.comparison.measures import COST, Unit, chosen, units
from qpm_lib.comparison.result import Comparison, Shown
from qpm_lib.core import progress
from qpm_lib.explain import METHODS, LearnedRanking
from qpm_lib.metrics import Scores

_CHUNK, _SIDE = 16, 160


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
    ValueError : for no cases, an unknown method or measure, or a method that no model allows.
    """
    if not cases:
        raise ValueError("no model was given to compare: see open_cases")
    check_methods(methods)
    wanted, extra = chosen(None if measures is None else tuple(measures)), dict(extra or {})
    found = [_builds(case, methods, extra) for case in cases]
    for name in methods or ():
        if not any(name in builds for builds in found):
            there = ", ".join(dict.fromkeys(n for case in cases for n in case.methods()))
            raise ValueError(f"no model allows method {name!r}: choose from {there}")
    todo = [(i, name, unit) for i, builds in enumerate(found) for name in builds for unit in _work(cases[i], wanted)]
    kept: dict[tuple[int, str], Kept] = {}
    for i, name, unit in progress(todo, "methods x measures"):
        case, build = cases[i], found[i][name]
        if unit is None:
            kept[i, name] = Kept("" if name in extra else case.key, _file(case, name, build))
            _explain(case, build, kept[i, name], cost=COST in wanted)
        else:
            _measure(case, build, unit, kept[i, name], holes)
    return _result(cases, kept, wanted, shown)


def check_methods(names: Sequence[str] | None) -> None:
    """Refuse names that are no methods, before hours of work.

    Raises
    ------
    ValueError : naming the first of them, and those that there are.
    """
    for name in names or ():
        if name not in METHODS and name != EXACT:
            raise ValueError(f"unknown explanation method {name!r}: choose from {', '.join((*METHODS, EXACT))}")


def _builds(case: Case, methods: Sequence[str] | None, extra: Mapping[str, Build]) -> dict[str, Build | None]:
    """How to make the methods that are wanted of a case; the exact answer needs none."""
    there: dict[str, Build | None] = dict(case.methods())
    if case.truths is not None:
        there[EXACT] = None
    return {**{name: build for name, build in there.items() if methods is None or name in methods}, **extra}


def _work(case: Case, wanted: tuple[str, ...]) -> list[Unit | None]:
    """The maps themselves, then the measures."""
    return [None, *units(case, wanted)]


def _file(case: Case, name: str, build: Build | None) -> str:
    """Name of the file: a trained explainer is another method each time that it is trained."""
    if name != "ranking" or build is None:
        return name
    method = build(case.target)
    return f"{name}-{state_hash(method.decoder.state_dict())[:16]}" if isinstance(method, LearnedRanking) else name


def _explain(case: Case, build: Build | None, entry: Kept, *, cost: bool) -> None:
    if build is None:
        entry.add({"maps": case.exact_maps().astype(np.float32)})
        return
    method, found = build(case.target), []
    if cost and COST not in entry.card:
        entry.add({}, cost=list(cost_of(case, method)))
    if "maps" in entry.arrays:
        return
    for start in range(0, len(case.images), _CHUNK):
        part = slice(start, start + _CHUNK)
        images = [image for image in case.images[part] for _ in range(2)]  # some methods try a picture for both at once
        asked = torch.stack([case.labels[part], case.rivals[part]], 1).flatten()
        found.append(method(images, asked).unflatten(0, (-1, 2)).numpy())
    entry.add({"maps": np.concatenate(found).astype(np.float32)})


def _measure(case: Case, build: Build | None, unit: Unit, entry: Kept, holes: int | None) -> None:
    """Take measures on the pictures that lack them, some at a time."""
    count = len(case.images)
    on, done = unit.on(count, holes or count), f"done/{unit.names[0]}"
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
    cases: Sequence[Case], kept: Mapping[tuple[int, str], Kept], wanted: tuple[str, ...], shown: int
) -> Comparison:
    of = {model: [i for i, case in enumerate(cases) if case.model == model] for model in (c.model for c in cases)}
    scores: dict[tuple[str, str], dict[str, Scores]] = {}
    costs: dict[tuple[str, str], Cost] = {}
    for model, numbers in of.items():
        for name in dict.fromkeys(name for i, name in kept if i in numbers):
            entries = [kept.get((i, name)) for i in numbers]
            scores[model, name] = _scores(entries, wanted, len(cases[0].images))
            priced = [entry.card[COST] for entry in entries if entry is not None and COST in entry.card]
            costs |= {(model, name): Cost(*priced[0])} if priced else {}
    seeds = {model: tuple(cases[i].seed for i in numbers) for model, numbers in of.items()}
    some = np.unique(np.linspace(0, len(cases[0].images) - 1, shown).astype(int)) if shown else np.zeros(0, int)
    return Comparison(scores, costs, seeds, len(cases[0].images), _shown(cases, kept, some))


def _scores(entries: Sequence[Kept | None], wanted: tuple[str, ...], pictures: int) -> dict[str, Scores]:
    """Scores by measure, a row for each seed; NaN for a seed whose model does not have the method."""
    nothing, found = np.full((3, pictures), np.nan), {}
    for measure in wanted:
        rows = [None if entry is None else entry.arrays.get(measure) for entry in entries]
        if any(row is not None for row in rows):
            found[measure] = Scores(*np.stack([nothing if row is None else row for row in rows], 1))
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
