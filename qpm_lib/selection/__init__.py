"""The quadratic programme that picks the features and the binary class weights."""

from qpm_lib.selection.assignment import assign
from qpm_lib.selection.constants import redundancy, relevance, similarity
from qpm_lib.selection.problem import Selection, SelectionProblem, make_problem, objective
from qpm_lib.selection.solver import Progress, solve
from qpm_lib.selection.teaching import solve_readable

__all__ = [
    "Progress",
    "Selection",
    "SelectionProblem",
    "assign",
    "make_problem",
    "objective",
    "redundancy",
    "relevance",
    "similarity",
    "solve",
    "solve_readable",
]
