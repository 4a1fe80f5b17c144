"""The quadratic programme that picks the features and the binary class weights, with its proof;
and the sparse linear baselines.
"""

from qpm_lib.selection.baselines.elastic_net import Layer, elastic_net, elastic_net_path, strongest_penalty
from qpm_lib.selection.baselines.sldd import SparseSelection, qsenn_layer, select_sparse, standardised
from qpm_lib.selection.constants import redundancy, relevance, similar_pairs, similarity
from qpm_lib.selection.problem import SelectionProblem, make_problem, objective
from qpm_lib.selection.readable import solve_plain, solve_readable
from qpm_lib.selection.result import Selection
from qpm_lib.selection.simulated import simulated_relevance
from qpm_lib.selection.solver import Progress, solve
from qpm_lib.selection.stages.assignment import assign
from qpm_lib.selection.steering import locality, paired_classes, part_share, solve_as_set, wish

__all__ = [
    "Layer",
    "Progress",
    "Selection",
    "SelectionProblem",
    "SparseSelection",
    "assign",
    "elastic_net",
    "elastic_net_path",
    "locality",
    "make_problem",
    "objective",
    "part_share",
    "paired_classes",
    "qsenn_layer",
    "redundancy",
    "relevance",
    "select_sparse",
    "similar_pairs",
    "similarity",
    "simulated_relevance",
    "solve",
    "solve_as_set",
    "solve_plain",
    "solve_readable",
    "standardised",
    "strongest_penalty",
    "wish",
]
