"""The quadratic programme that picks the features and the binary class weights."""

from qpm_lib.selection.assignment import assign
from qpm_lib.selection.constants import redundancy, relevance, similarity
from qpm_lib.selection.problem import Selection, SelectionProblem, make_problem, objective
from qpm_lib.selection.simulated import simulated_relevance
from qpm_lib.selection.sldd import SparseSelection, select_sparse
from qpm_lib.selection.solver import Progress, solve
from qpm_lib.selection.steering import locality, part_share
from qpm_lib.selection.teaching import solve_plain, solve_readable

__all__ = [
    "Progress",
    "Selection",
    "SelectionProblem",
    "SparseSelection",
    "assign",
    "locality",
    "make_problem",
    "objective",
    "part_share",
    "redundancy",
    "relevance",
    "select_sparse",
    "similarity",
    "simulated_relevance",
    "solve",
    "solve_plain",
    "solve_readable",
]
