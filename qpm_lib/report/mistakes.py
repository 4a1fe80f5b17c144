"""The page of mistakes: which features made each of them."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from qpm_lib.conformal import HierarchicalSets
from qpm_lib.explain import compare_classes
from qpm_lib.model import supported_confidences
from qpm_lib.report.pages import Page, render
from qpm_lib.report.view import ModelView

_PAIRS = 10


@dataclass(frozen=True)
class Reason:
    """What a feature adds to the lead of the answer, what it usually adds, who has it with which weight,
    and how strong it is here.
    """

    feature: int
    weight: float
    added: float
    usually: float
    whose: str
    rank: str

    @property
    def moved(self) -> float:
        """By how much the lead differs from the usual one because of this feature."""
        return self.added - self.usually


class Doubt(NamedTuple):
    """What would have been said instead with a promise: the smallest confidence at which the truth is in the set (the
    largest one that was looked at where it never is), the set, the answer first, the calibrated level, and how
    strong classes with another path must be (`Rule.share`).
    """

    confidence: float
    classes: tuple[int, ...]
    level: int
    share: float | None
    has_truth: bool


@dataclass(frozen=True)
class Mistake:
    """A wrong answer: its scores, the lead of the answer here and at the usual values of the truth, and the reasons.

    `rest` is what the constants, and features that both classes have with different weights, add to the lead. `doubt`
    is None for a model that promises nothing.
    """

    row: int
    truth: int
    answer: int
    strip: str
    score: float
    other_score: float
    usual_lead: float
    reasons: tuple[Reason, ...]
    rest: float
    doubt: Doubt | None = None

    @property
    def lead(self) -> float:
        """By how much the answer's score exceeds that of the truth."""
        return self.score - self.other_score


def mistakes_page(view: ModelView) -> Page:
    """Wrong answers with the features that made them."""
    labels, predicted = view.snapshot.labels, view.snapshot.predicted
    mistakes = [explain_mistake(view, int(i)) for i in np.flatnonzero(view.truth != view.answer)]
    found = {"count": int((labels != predicted).sum()), "n": len(labels), "pairs": _pairs(view)}
    return Page("Mistakes", render("mistakes.html", view=view, mistakes=mistakes, **found))


def _pairs(view: ModelView) -> list[tuple[int, int, int]]:
    """The most frequent pairs of truth and wrong answer, and their number."""
    labels, predicted, c = view.snapshot.labels, view.snapshot.predicted, len(view.class_names)
    wrong = labels != predicted
    counts = np.bincount(labels[wrong] * c + predicted[wrong], minlength=1)
    order = np.argsort(-counts, kind="stable")[:_PAIRS].tolist()
    return [(code // c, code % c, int(counts[code])) for code in order if counts[code]]


def explain_mistake(view: ModelView, position: int) -> Mistake:
    """Why a kept picture got its wrong answer; what changed the lead most comes first."""
    truth, answer, row = int(view.truth[position]), int(view.answer[position]), view.row(position)
    values, usual = view.snapshot.values[position], view.snapshot.typical[truth]
    groups = compare_classes(view.model.class_weight, answer, truth)
    mine, theirs = groups.only_a.tolist(), groups.only_b.tolist()
    scores = view.weight[[answer, truth]] @ values + view.constants[[answer, truth]]
    difference = view.weight[answer] - view.weight[truth]
    reasons = [
        Reason(
            feature=f,
            weight=float(view.weight[answer if f in mine else truth, f]),
            added=float(difference[f] * values[f]),
            usually=float(difference[f] * usual[f]),
            whose="only the answer has it" if f in mine else "only the truth has it",
            rank=_rank(float(values[f]), float(usual[f]), float(view.snapshot.below[position, f])),
        )
        for f in [*mine, *theirs]
    ]
    lead = float(scores[0] - scores[1])
    return Mistake(
        row=row,
        truth=truth,
        answer=answer,
        strip=view.strip(position, [mine, theirs], f"mistake_{row}"),
        score=float(scores[0]),
        other_score=float(scores[1]),
        usual_lead=lead - float(difference @ (values - usual)),
        reasons=tuple(sorted(reasons, key=lambda reason: -reason.moved)),
        rest=lead - sum(reason.added for reason in reasons),
        doubt=_doubt(view.sets, torch.from_numpy(values), view, truth) if view.sets else None,
    )


def _doubt(sets: HierarchicalSets, values: Float[Tensor, "n"], view: ModelView, truth: int) -> Doubt | None:
    """The sets of one picture at more and more confidence, until the truth is in."""
    scores, found = values @ torch.from_numpy(view.weight).T + torch.from_numpy(view.constants), None
    for confidence in supported_confidences(sets):
        classes, rule = sets.members(values, scores, 1 - confidence), sets.rule(1 - confidence)
        found = Doubt(confidence, tuple(classes), rule.level, rule.share, truth in classes)
        if found.has_truth:
            break
    return found


def _rank(value: float, usual: float, below: float) -> str:
    """How strong a feature is beside the pictures of the class that are answered rightly; `below` is the share in which
    it is weaker.
    """
    if value < usual:
        return f"weaker than in {_share(1 - below)} of them"
    return f"stronger than in {_share(below)} of them" if below >= 0.5 else "as in most of them"


def _share(part: float) -> str:
    return "all" if part > 0.995 else f"{100 * part:.0f} %"
