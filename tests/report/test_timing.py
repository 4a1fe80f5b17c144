"""The page of times, from executed copies whose times are known."""

import nbformat
import pytest

from qpm_lib.core.profiles import load_profile
from qpm_lib.report.timing import read_times, timing_page
from qpm_lib.runs.folder import RunFolder


def executed(place, whole, *cells):
    """An executed copy: (heading, source, seconds) of its cells; those of the heading `Next` only teach."""
    book = nbformat.v4.new_notebook(metadata={"papermill": {"duration": whole}} if whole else {})
    for heading, source, seconds in cells:
        book.cells.append(nbformat.v4.new_markdown_cell(f"## {heading}\nText."))
        book.cells.append(nbformat.v4.new_code_cell(source, metadata={"papermill": {"duration": seconds}}))
        book.cells[-1].metadata["tags"] = ["lesson"] if heading == "Next" else []
    place.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(book, place)
    return place


@pytest.fixture
def run(tmp_path):
    return RunFolder.create(tmp_path, load_profile("smoke"))


def test_the_longest_cells_of_a_chapter_are_named(run):
    cells = [("Short", "a = 1", 0.4), ("Long", "# why\ntrain(<x>)\nb = 2", 6.0), ("Next", "look()", 1.0)]
    place = executed(run.path / "notebooks" / "02_dense_model.ipynb", 10.0, *cells)
    found = read_times(place)
    assert (found.seconds, found.lesson) == (10.0, 1.0)
    assert [(c.heading, c.line, c.seconds) for c in found.cells] == [
        ("Long", "train(<x>)", 6.0),
        ("Next", "look()", 1.0),
    ]
    executed(run.path / "notebooks" / "04_fine_tuning.ipynb", 30.0, ("Only", "fit()", 29.0))
    page = timing_page(run, ["01_frozen_features", "02_dense_model", "04_fine_tuning"])
    assert "40 s in all chapters" in page.body
    assert "train(&lt;x&gt;)" in page.body
    assert page.body.index("02_dense_model.html") < page.body.index("04_fine_tuning.html")
    assert "75 %" in page.body
    assert "1 s of it went into cells that only teach" in page.body


def test_what_holds_no_times_has_no_page(run):
    executed(run.path / "notebooks" / "02_dense_model.ipynb", None, ("A", "a = 1", None))
    assert timing_page(run, ["01_frozen_features", "02_dense_model"]) is None
