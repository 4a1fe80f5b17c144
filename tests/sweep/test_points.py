"""Points of a sweep and its plan: what is refused before anything starts, and what is counted once."""

import pytest

from qpm_lib.core.profiles import load_profile
from qpm_lib.runs.chapters import chain
from qpm_lib.runs.store import ChapterStore
from qpm_lib.sweep.plan import plan_sweep
from qpm_lib.sweep.points import read_points

GRID = {"seed": ["0", "1", "2"], "selection.method": ["qpm", "sldd", "qsenn"]}


def test_a_grid_is_all_combinations_and_each_is_what_run_would_make():
    points = read_points("smoke", common={"dense.epochs": "3"}, grid=GRID)
    assert len({p.name for p in points}) == len(points) == 9
    assert points[4].name.startswith("seed-1_method-sldd-")
    assert points[4].config == load_profile("smoke", **{"dense.epochs": "3", "seed": "1", "selection.method": "sldd"})


def test_a_plan_has_a_point_for_each_line_and_empty_cells_change_nothing(tmp_path):
    path = tmp_path / "points.csv"
    path.write_text("dense.epochs,selection.method\n3,sldd\n\n5,\n")
    points = read_points("smoke", plan=path, grid={"seed": ["0", "1"]})
    assert [(p.config.dense.epochs, p.config.selection.method, p.config.seed) for p in points] == [
        (3, "sldd", 0), (3, "sldd", 1), (5, "qpm", 0), (5, "qpm", 1),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("grid", "plan", "words"),
    [
        ({"dense.epoch": ["3"]}, None, r"dense.epoch=3: unknown setting 'dense.epoch': did you mean dense.epochs"),
        ({"seed": ["0", "x"]}, None, r"seed=x: seed \(='x'\) must be a whole number"),
        ({"seed": ["1", "1"]}, None, r"seed=1: the same settings as seed=1"),
        ({"dense.lr": ["1e-3", "0.001"]}, None, r"dense.lr=0.001: the same settings as dense.lr=1e-3"),
        ({"device": ["cpu"]}, None, "device is set for all points and varied as well"),
        ({}, "seed,dense.epochs\n1,2\n3\n", r"points.csv, line 3: 1 values for 2 columns"),
        ({}, "seed,seed\n1,2\n", r"points.csv, line 1: every column needs a name of its own"),
        ({}, "seed,dense.epochs\n1,2\n\n2,none\n", r"points.csv, line 4: dense.epochs \(='none'\) must be a whole"),
        ({}, "seed\n1\n1\n", r"points.csv, line 3: the same settings as .*points.csv, line 2"),
        ({"seed": ["1"]}, "seed\n1\n", "seed is a column of the plan and varied by --grid"),
        ({}, "seed\n", "holds no point"),
    ],
)  # fmt: skip
def test_bad_points_are_named(grid, plan, words, tmp_path):
    path = None
    if plan is not None:
        path = tmp_path / "points.csv"
        path.write_text(plan)
    with pytest.raises(ValueError, match=words):
        read_points("smoke", common={"device": "cpu"}, grid=grid, plan=path)
    with pytest.raises(ValueError, match=r"none.csv cannot be read"):
        read_points("smoke", plan=tmp_path / "none.csv")


def test_every_distinct_chapter_is_planned_once_and_after_what_it_needs(tmp_path):
    points = read_points("smoke", grid=GRID)
    plan = plan_sweep(points, ChapterStore(tmp_path, "here"), end="06_evaluation")
    names = [task.chapter[:2] for task in plan.tasks]
    assert {number: names.count(number) for number in sorted(set(names))} == {
        "01": 1, "02": 3, "03": 9, "04": 9, "05": 9, "06": 9,
    }  # fmt: skip
    before = set()
    for task in plan.tasks:
        assert task.after is None or task.after in before
        before.add(task.key)
    later = sum(len(chain(point.config)) - 2 for point in points)  # baselines have a chapter less
    assert len(plan_sweep(points, ChapterStore(tmp_path, "here")).tasks) == 1 + 3 + later
    elsewhere = plan_sweep(points, ChapterStore(tmp_path, "there"), end="06_evaluation")
    assert not {t.key for t in plan.tasks} & {t.key for t in elsewhere.tasks}
    bare = plan_sweep(points, ChapterStore(tmp_path, "here"), parameters={"06_evaluation": {"lesson": False}})
    assert sum(t.key in before for t in bare.tasks) == 1 + 3 + 9 * 3
