"""Many runs at once: a grid or a plan, each distinct chapter executed once, on several processes or machines."""

from qpm_lib.sweep.cluster import Workers, start_workers, threads_each
from qpm_lib.sweep.extracting import extract_features
from qpm_lib.sweep.page import sweep_page
from qpm_lib.sweep.plan import Plan, Task, plan_sweep
from qpm_lib.sweep.points import Point, read_points
from qpm_lib.sweep.running import Done, run_sweep

__all__ = [
    "Done",
    "Plan",
    "Point",
    "Task",
    "Workers",
    "extract_features",
    "plan_sweep",
    "read_points",
    "run_sweep",
    "start_workers",
    "sweep_page",
    "threads_each",
]
