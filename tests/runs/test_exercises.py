"""Exercises without solutions, and what is said of answers."""

import json
import shutil
from pathlib import Path

import nbformat
import numpy as np
import pytest
import torch

from qpm_lib.cli import main
from qpm_lib.runs import EXERCISES, grade, write_exercise
from qpm_lib.runs.examiner import Examiner, agree
from qpm_lib.runs.exercises import needed, read_exercise

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning")


def answered(path, code):
    """The exercise with code in its last cell."""
    book = nbformat.read(path, as_version=4)
    book.cells[-1].source = code
    nbformat.write(book, path)
    return path


@pytest.mark.chain
@pytest.mark.parametrize("chapter", EXERCISES)
def test_every_solution_runs_and_is_right(chapter, smoke, tmp_path):
    path = write_exercise(chapter, tmp_path)
    verdict = grade(answered(path, read_exercise(chapter).solution))
    assert verdict == (chapter, True, "right")


@pytest.mark.chain
def test_answers_are_told_apart(smoke, tmp_path, capsys):
    path = write_exercise("04_fine_tuning", tmp_path)
    files = {
        "nothing": "",
        "wrong": "terms = np.zeros(3)",
        "another way": "terms = (weight[predicted] * vector / model.head.std.numpy(force=True))[used]",
        "leans on the solution": "terms = constant * np.ones(3)",
    }
    for name, code in files.items():
        shutil.copyfile(path, tmp_path / f"{name}.ipynb")
        answered(tmp_path / f"{name}.ipynb", code)
    command = ["grade", *(str(tmp_path / f"{name}.ipynb") for name in files), "--json", str(tmp_path / "grades.json")]
    assert main(command) == 1
    assert "1 of 4 right" in capsys.readouterr().out
    found = json.loads((tmp_path / "grades.json").read_text())["exercises"]
    words = {name: entry["words"] for name, entry in zip(files, found, strict=True)}
    assert words["nothing"] == "not answered: terms is not defined"
    assert words["wrong"] == "terms (=array([0., 0., 0.])) is not what the solution gives"
    assert words["another way"] == "right"
    assert words["leans on the solution"].startswith("raised NameError: name 'constant'")


def test_exercises_hold_no_solution_and_keep_what_they_stand_on(tmp_path, capsys):
    assert main(["exercises", "--out", str(tmp_path / "set")]) == 0
    capsys.readouterr()
    for chapter in EXERCISES:
        cells = nbformat.read(tmp_path / "set" / f"{chapter}.ipynb", as_version=4).cells
        text = "\n".join(cell.source for cell in cells)
        assert "## Exercise" in text
        assert "<summary>" not in text
        assert "## Recap" not in text
        assert 'profile = "smoke"' in text
        assert read_exercise(chapter).solution not in text
    assert main(["exercises", "--out", str(tmp_path / "set")]) == 1
    assert f"holds {len(EXERCISES)} of them already" in capsys.readouterr().err
    assert main(["exercises", "--out", str(tmp_path / "set"), "--overwrite"]) == 0


def test_only_cells_that_are_needed_run_before():
    setup = ["import numpy as np", "a = np.ones(3)", "b = 2 * a", "a = a + 1", "c = 5", "a[0] = 7", "print(b)"]
    assert needed(setup, "d = a.sum()") == ["import numpy as np", "a = np.ones(3)", "a = a + 1", "a[0] = 7"]
    assert needed(setup, "c") == ["c = 5"]
    assert needed(setup, "b") == ["import numpy as np", "a = np.ones(3)", "b = 2 * a"]
    assert needed(["if x:\n    y = 1", "y = 2"], "y") == ["y = 2"]
    assert needed(["y = 1", "if x:\n    y = 2"], "y") == ["y = 1", "if x:\n    y = 2"]


@pytest.mark.parametrize(
    ("expected", "found", "same"),
    [
        (3, 3.0, True),
        (3, 4, False),
        (0.5, np.float32(0.50001), True),
        (torch.ones(3), [1, 1, 1], True),
        (torch.ones(3), [1, 1], False),
        (np.nan, float("nan"), True),
        ((1, (2.0, "a")), [1, [2.0, "a"]], True),
        ({1: 2.0}, {1: 2.0001}, True),
        ({1: 2.0}, {2: 2.0}, False),
        ({1, 2}, [1, 2], True),
        ("a", "b", False),
        (3, None, False),
        (3, "3", False),
        (3, object(), False),
    ],
)
def test_answers_agree_whatever_holds_them(expected, found, same):
    assert agree(expected, found) is same


def test_what_the_solution_defines_is_forgotten(tmp_path):
    names = {"x": 1}
    examiner = Examiner(names, ["answer"])
    names |= {"_examiner": examiner, "answer": 2, "helper": 3, "x": 4}
    examiner.keep()
    assert names == {"x": 1, "_examiner": examiner}
    names["answer"] = 2
    examiner.judge(str(tmp_path / "verdict.json"))
    assert json.loads((tmp_path / "verdict.json").read_text()) == {"right": True, "words": "right"}


def test_bad_files_are_named_before_anything_runs(tmp_path, capsys):
    good = write_exercise("02_dense_model", tmp_path)
    (tmp_path / "broken.ipynb").write_text("{")
    shutil.copyfile(Path(__file__), tmp_path / "code.ipynb")
    nbformat.write(nbformat.v4.new_notebook(), tmp_path / "empty.ipynb")
    for name, words in (("broken", "cannot be read"), ("code", "cannot be read"), ("empty", "is no exercise")):
        assert main(["grade", str(good), str(tmp_path / f"{name}.ipynb")]) == 1
        error = capsys.readouterr().err
        assert words in error
        assert len(error.strip().splitlines()) == 1
    assert main(["grade", str(tmp_path / "missing.ipynb")]) == 1
    assert main(["grade", str(good), "--timeout", "0"]) == 1
    assert main(["grade", str(good), "--json", str(good)]) == 1
    assert main(["exercises", "--out", str(good)]) == 1
