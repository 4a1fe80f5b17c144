"""Three tiny chapters in the place of the real ones, for tests of what executes them."""

import nbformat
import pytest

from qpm_lib.runs import chapters, execution, up_to_date
from qpm_lib.runs.chapters import CHAPTERS
from qpm_lib.sweep import plan

PARAMETERS = 'run_folder = "x"  # folder\nprofile = "toy"  # profile\nanswer = 1  # a number'
# They do not import the package, which takes longer than everything else that they do.
RECORD = """import json, pathlib
run = pathlib.Path(run_folder)
{leave}results = json.loads((run / "result.json").read_text())
results["{name}"]["figures"] = {{"answer": answer}}
(run / "result.json").write_text(json.dumps(results))"""
EMPTY = {"safetensors": "(2).to_bytes(8, 'little') + b'{}'", "json": "b'{}'"}


def write_chapter(folder, chapter, body=""):
    leave = ""
    for file in chapter.leaves:
        leave += f"(run / '{file}').parent.mkdir(exist_ok=True)\n"
        leave += f"(run / '{file}').write_bytes({EMPTY[file.rpartition('.')[2]]})\n"
    cells = [
        nbformat.v4.new_code_cell(PARAMETERS, metadata={"tags": ["parameters"]}),
        nbformat.v4.new_code_cell(body or "1 + 1"),
    ]
    cells.append(nbformat.v4.new_code_cell(RECORD.format(leave=leave, name=chapter.name)))
    book = nbformat.v4.new_notebook(
        cells=cells, metadata={"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    )
    nbformat.write(book, folder / f"{chapter.name}.ipynb")


@pytest.fixture
def small_course(tmp_path, monkeypatch):
    """Three tiny chapters in the place of the eleven: 01 <- 02 <- 04."""
    folder = tmp_path / "notebooks"
    folder.mkdir()
    chain = (CHAPTERS[0], CHAPTERS[1], CHAPTERS[3]._replace(needs=("02_dense_model",)))
    for chapter in chain:
        write_chapter(folder, chapter)
    monkeypatch.setattr(chapters, "CHAPTERS", chain)
    for place in (up_to_date, execution, plan):
        monkeypatch.setattr(place, "notebooks_folder", lambda: folder)
    return folder, chain
