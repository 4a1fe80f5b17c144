"""The stages of the solver, in the order in which `solver.py` calls them: `heuristic` (a good selection), `bounds`
(how good one can be, with `cuts`, `local` and `class_sets`), then `tree` or `scip` (closing the gap).

The others help: `assignment`, `sharing`, `callbacks`, `highs`.
"""
