"""Sorting with a gradient: Gumbel-Sinkhorn (Mena et al. 2018, arXiv 1802.08665), as in *Learn to Rank*
(arXiv 2604.05819), and the masks that take the most important cells of a picture away.
"""

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor
from torch.utils.checkpoint import checkpoint


def soft_sort(
    scores: Float[Tensor, "batch cells"],
    *,
    levels: int | None = None,
    tau: float = 0.3,
    iterations: int = 30,
    noise: Float[Tensor, "batch levels cells"] | None = None,
) -> Float[Tensor, "batch levels cells"]:
    """Which share of each cell has which rank, the most important first: a permutation matrix that was made soft.

    With anchors a = linspace(1, 0, m), log alpha_ij = (-(s_j - a_i)^2 + noise_ij) / tau, and rows and columns are
    scaled in turn, in log space, until every cell adds up to 1 and every rank to d / m. The smaller tau, and the
    further the scores are apart, the harder it is. Cells always add up; ranks do so to 1e-4 after enough iterations,
    which with noise at tau 0.3 can be hundreds (30, the published number, leave a few percent).

    As published, m = d. With fewer levels (ours) a row is a group of ranks, the largest d / m cells and so on: what
    deletion and insertion need, for m / d of the memory. The matrix of -s is that of s upside down.

    The backward pass computes each iteration again and keeps the m + d scalings alone, not 2 m d values for each.

    Parameters
    ----------
    levels : m, number of ranks; None is d. noise : drawn from `gumbel`, or None.

    Raises
    ------
    ValueError : for a temperature that is not positive, or levels outside 1 to d.
    """
    cells = scores.shape[1]
    levels = cells if levels is None else levels
    if tau <= 0 or iterations < 1 or not 1 <= levels <= cells:
        raise ValueError(
            f"tau (={tau}) must be positive, iterations (={iterations}) at least 1, and levels (={levels}) from 1 to "
            f"{cells}, the number of cells"
        )
    anchors = torch.linspace(1, 0, levels, device=scores.device, dtype=scores.dtype)
    distance = -(rearrange(scores, "b d -> b 1 d") - rearrange(anchors, "m -> 1 m 1")).square()
    logits = (distance if noise is None else distance + noise) / tau
    share = torch.tensor(cells / levels, device=scores.device, dtype=scores.dtype).log()
    rows = scores.new_zeros(len(scores), levels)
    columns = _columns(logits, rows)
    for _ in range(iterations):
        rows, columns = checkpoint(_round, logits, columns, share, use_reentrant=False, preserve_rng_state=False)
    return (logits + rows[:, :, None] + columns[:, None]).exp()


def _columns(logits: Tensor, rows: Tensor) -> Tensor:
    return -(logits + rows[:, :, None]).logsumexp(1)


def _round(logits: Tensor, columns: Tensor, share: Tensor) -> tuple[Tensor, Tensor]:
    rows = share - (logits + columns[:, None]).logsumexp(2)
    return rows, _columns(logits, rows)


def gumbel(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Standard Gumbel noise, drawn on the CPU."""
    return -(-torch.rand(shape, generator=generator).clamp(1e-20, 1 - 1e-7).log()).log()


def removed(
    ranks: Float[Tensor, "batch levels cells"], fractions: Float[Tensor, "n"]
) -> Float[Tensor, "batch n cells"]:
    """How much of each cell is gone when the most important fraction is: ranks added up, interpolated between levels.

    Nothing is gone at 0, everything at 1.
    """
    levels = ranks.shape[1]
    total = torch.cat([torch.zeros_like(ranks[:, :1]), ranks.cumsum(1)], 1)
    place = (fractions.to(ranks) * levels).clamp(0, levels)
    below = place.floor().long().clamp(max=levels - 1)
    weight = (place - below)[None, :, None]
    return total[:, below] * (1 - weight) + total[:, below + 1] * weight


def hard_sort(scores: Float[Tensor, "batch cells"]) -> Float[Tensor, "batch cells cells"]:
    """The permutation matrix itself: row i has a 1 where the cell with rank i is (ties in their order)."""
    order = scores.argsort(dim=1, descending=True, stable=True)
    return torch.nn.functional.one_hot(order, scores.shape[1]).to(scores)
