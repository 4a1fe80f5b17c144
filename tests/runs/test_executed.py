"""Executed copies that can be handed on."""

import json
import sys

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook, new_output

from qpm_lib.core import cache_folder, load_profile
from qpm_lib.runs.executed import without_paths
from qpm_lib.runs.execution import run_chapters
from qpm_lib.runs.folder import RunFolder


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning")
def test_executed_copies_hold_no_path_of_the_machine_and_can_be_executed_where_they_lie(small_course, tmp_path):
    folder, chain = small_course
    run = RunFolder.create(tmp_path / "deep" / "run", load_profile("smoke"))
    run_chapters(run)
    for chapter in chain:
        text = (run.path / "notebooks" / f"{chapter.name}.ipynb").read_text()
        assert str(tmp_path) not in text
        assert sys.prefix not in text
        cells = nbformat.reads(text, as_version=4).cells
        injected = next(cell for cell in cells if "injected-parameters" in cell.metadata.get("tags", []))
        assert 'run_folder = ".."' in injected.source
    assert folder.exists()


def test_only_whole_folders_get_names_and_pictures_stay(tmp_path):
    run = RunFolder.create(tmp_path / "run", load_profile("smoke"))
    notebooks, copy = tmp_path / "course" / "notebooks", tmp_path / "copy.ipynb"
    printed = f"{run.path}/figures/a.png {run.path}-2/b {notebooks}/x.ipynb {cache_folder()} {sys.prefix}/lib"
    data = {"text/plain": f"'{run.path}'", "image/png": f"{run.path}/aGVsbG8=", "text/html": [f"<a>{run.path}</a>"]}
    outputs = [new_output("stream", text=printed), new_output("display_data", data=data)]
    nbformat.write(new_notebook(cells=[new_code_cell("1", outputs=outputs)]), copy)
    without_paths(copy, run, notebooks)
    stream, shown = json.loads(copy.read_text())["cells"][0]["outputs"]
    expected = f"../figures/a.png {run.path}-2/b notebooks/x.ipynb <cache> <environment>/lib"
    assert "".join(stream["text"]) == expected
    assert "".join(shown["data"]["text/plain"]) == "'..'"
    assert "".join(shown["data"]["text/html"]) == "<a>..</a>"
    assert "".join(shown["data"]["image/png"]) == data["image/png"]
