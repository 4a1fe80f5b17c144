"""A comparison as tables: rows of text, Markdown, CSV."""

import csv
import io
from collections.abc import Sequence
from math import isfinite

from qpm_lib.comparison.measures import MEASURES, STEPS
from qpm_lib.comparison.result import Comparison, method_title
from qpm_lib.core import METHODS
from qpm_lib.metrics import Estimate

Rows = list[list[str]]


_AGREE = (
    "Does a measure put methods into the order of one that is the truth? Rank correlation, the two measures on "
    "separate halves of the pictures, with 95 % intervals over pictures and methods; a truth with itself says how much "
    "the pictures allow. Over"
)
_HOW = """## How to read it

Larger is better everywhere. Brackets: 95 % bootstrap intervals over pictures of the mean over seeds (none for fewer
than five pictures). Bold: the best of the column (without the exact answer), and all methods that cannot be told from
it (differences on the same pictures, methods exchanged by lot, Holm's correction for all pairs of methods, p at least
0.05; all pairs stand in differences.csv). The last measures are conditions, which noise meets best, and no race:
nothing is bold there.
Measures that are the truth are skills: 0 is a random map, 1 the best that can be painted on the patch grid. The others
have no such scale: compare with random, centred blob, edges and the exact answer.
Holes: {steps} versions of a picture from whole to empty. Seconds a picture, the same in times of a forward pass of the
backbone, for one class, and peak memory above that of the model: on the machine that made this table, whatever else ran
there."""


def interval_text(found: Estimate | None) -> str:
    """A value with its interval."""
    if found is None:
        return "n/a"
    return f"{found.value:.2f}" + (f" [{found.low:.2f}, {found.high:.2f}]" if isfinite(found.low) else "")


def score_rows(comparison: Comparison, model: str) -> Rows:
    """The table of one model: a head, then a row for each method. Bold is the best of a column, and what cannot be told
    from it.
    """
    measures = comparison.measures(model)
    means = {m: comparison.means(model, m) for m in measures}
    leaders = {m: comparison.leaders(model, m) for m in measures}
    priced = any(owner == model for owner, _ in comparison.costs)
    rows = [
        ["method", *(MEASURES[m].title for m in measures), *(("seconds", "in forward passes", "MB") if priced else ())]
    ]
    for name in comparison.methods(model):
        cells = [interval_text(means[m].get(name)) for m in measures]
        cells = [f"**{c}**" if name in leaders[m] else c for c, m in zip(cells, measures, strict=True)]
        cost = comparison.costs.get((model, name))
        told = ["", "", ""] if priced else []
        told = [f"{cost.seconds:.3f}", f"{cost.passes:.3g}", f"{max(cost.megabytes, 0):.0f}"] if cost else told
        rows.append([method_title(name), *cells, *told])
    return rows


def long_rows(comparison: Comparison) -> Rows:
    """Every score on a row of its own, for a spreadsheet."""
    rows = [["model", "seeds", "method", "measure", "value", "low", "high", "pictures"]]
    for model in comparison.models:
        seeds = " ".join(map(str, comparison.seeds[model]))
        for measure in comparison.measures(model):
            for name, found in comparison.means(model, measure).items():
                numbers = [f"{x:.4f}" for x in found[:3]]
                rows.append([model, seeds, name, measure, *numbers, str(found.count)])
    return rows


def difference_rows(comparison: Comparison) -> Rows:
    """Every pair of methods on every measure, the better one first."""
    rows = [["model", "measure", "better", "worse", "difference", "low", "high", "p (Holm)", "effect (d)", "pictures"]]
    for model in comparison.models:
        for measure in comparison.measures(model):
            for (a, b), found in comparison.differences(model, measure).items():
                turn = found.value < 0
                ends = (-found.high, -found.low) if turn else (found.low, found.high)
                numbers = [f"{x:.4f}" for x in (abs(found.value), *ends, found.p)]
                effect = f"{-found.effect if turn else found.effect:.3f}"
                pair = (b, a) if turn else (a, b)
                rows.append([model, measure, *pair, *numbers, effect, str(found.pictures)])
    return rows


def agreement_rows(comparison: Comparison, model: str) -> Rows:
    """How well each measure orders the real methods as each that is the truth does; empty without a truth."""
    found = comparison.agreement(model)
    truth = list(dict.fromkeys(b for _, b in found))
    rows = [["measure", *(MEASURES[b].title for b in truth)]] if found else []
    for a in dict.fromkeys(a for a, _ in found):
        rows.append([MEASURES[a].title, *(interval_text(found.get((a, b))) for b in truth)])
    return rows


def long_agreement_rows(comparison: Comparison) -> Rows:
    """Agreement of every model on rows of their own, for a spreadsheet; the head alone without a truth."""
    rows = [["model", "measure", "truth", "value", "low", "high", "methods"]]
    for model in comparison.models:
        for (measure, truth), found in comparison.agreement(model).items():
            rows.append([model, measure, truth, *(f"{x:.4f}" for x in found[:3]), str(found.count)])
    return rows


def to_markdown(comparison: Comparison) -> str:
    """Everything a reader needs: the tables of all models, how to read them, agreement with the truth."""
    parts = ["# Explanation methods side by side"]
    for model in comparison.models:
        seeds = ", ".join(map(str, comparison.seeds[model]))
        parts.append(f"## {METHODS[model]}\n\n{comparison.pictures} test pictures, seeds {seeds}.")
        parts.append(_markdown(score_rows(comparison, model)))
        if rows := agreement_rows(comparison, model):
            count = len(comparison.methods(model, real=True))
            parts.append(f"{_AGREE} {count} methods (without the maps that know nothing):")
            parts.append(_markdown(rows))
    asked = [m for m in MEASURES if any(m in comparison.measures(model) for model in comparison.models)]
    told = [f"- **{MEASURES[m].title}**: {MEASURES[m].asks}. Favours {MEASURES[m].favours}." for m in asked]
    how = _HOW.format(steps=STEPS)
    return "\n\n".join([*parts, how, "\n".join(told)]) + "\n"


def _markdown(rows: Sequence[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([lines[0], "|---" * len(rows[0]) + "|", *lines[1:]])


def to_csv(rows: Sequence[Sequence[str]]) -> str:
    """Rows as CSV."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()
