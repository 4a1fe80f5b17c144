"""Learned importance ranking (arXiv 2604.05819): an explainer trained on deletion and insertion themselves."""

from qpm_lib.explain.ranking.decoder import Decoder
from qpm_lib.explain.ranking.method import LearnedRanking
from qpm_lib.explain.ranking.objective import Areas, areas, draw_fractions, hard_areas
from qpm_lib.explain.ranking.sorting import gumbel, hard_sort, removed, soft_sort
from qpm_lib.explain.ranking.start import embedded_start, save_start
from qpm_lib.explain.ranking.training import train_ranking

__all__ = [
    "Areas",
    "Decoder",
    "LearnedRanking",
    "areas",
    "draw_fractions",
    "embedded_start",
    "gumbel",
    "hard_areas",
    "hard_sort",
    "removed",
    "save_start",
    "soft_sort",
    "train_ranking",
]
