"""Explanation methods side by side: every method, every model, the same pictures, the same measures."""

from qpm_lib.comparison.case import EXACT, Case, open_cases
from qpm_lib.comparison.comparing import check_methods, compare
from qpm_lib.comparison.cost import Cost
from qpm_lib.comparison.figures import agreement_table, maps_figure, score_table
from qpm_lib.comparison.measures import MEASURES, Measure, chosen
from qpm_lib.comparison.result import Comparison, Shown, knows_nothing, method_title
from qpm_lib.comparison.tables import (
    agreement_rows,
    difference_rows,
    long_agreement_rows,
    long_rows,
    score_rows,
    to_csv,
    to_markdown,
)

__all__ = [
    "Case",
    "Comparison",
    "Cost",
    "EXACT",
    "MEASURES",
    "Measure",
    "Shown",
    "agreement_rows",
    "agreement_table",
    "check_methods",
    "chosen",
    "compare",
    "difference_rows",
    "knows_nothing",
    "long_agreement_rows",
    "long_rows",
    "maps_figure",
    "method_title",
    "open_cases",
    "score_rows",
    "score_table",
    "to_csv",
    "to_markdown",
]
