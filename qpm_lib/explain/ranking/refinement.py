"""Making the order of one picture better: its scores themselves are trained for a few steps."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from qpm_lib.explain.ranking.objective import SPREAD, areas, draw_fractions, hard_areas, reference, standardised
from qpm_lib.explain.ranking.sorting import soft_sort
from qpm_lib.explain.target import Target

_LOOK_EVERY = 5  # steps of refinement


def refine_one(
    target: Target,
    pixels: Float[Tensor, "1 3 size size"],
    start: Float[Tensor, "1 cells"],
    c: Int[Tensor, "1"],
    steps: int,
    lr: float,
    fractions: int,
    levels: int,
) -> Float[Tensor, "1 cells"]:
    """Scores of one picture after some steps from a start, the best by the hard measure, which is asked every five."""
    instead, chosen = reference(target, pixels, "mean"), draw_fractions(fractions)
    scores = (SPREAD / 2 * standardised(start)).requires_grad_()
    best, best_value = start, _gap(target, pixels, start, c)
    optimiser = torch.optim.Adam([scores], lr=lr)
    for step in range(1, steps + 1):
        with torch.enable_grad():
            ranks = soft_sort(scores, levels=min(levels, scores.shape[1]))
            found = areas(target, pixels, instead, ranks, c, chosen)
            [scores.grad] = torch.autograd.grad((found.deletion - found.insertion).sum(), scores)
        optimiser.step()
        if step % _LOOK_EVERY and step != steps:
            continue
        value = _gap(target, pixels, scores.detach(), c)
        if value > best_value:
            best, best_value = scores.detach().clone(), value
    return best


def _gap(target: Target, pixels: Tensor, scores: Tensor, c: Tensor) -> float:
    found = hard_areas(target, pixels, scores, c)
    return float((found.insertion - found.deletion)[0])
