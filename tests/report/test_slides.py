"""Slides of an executed chapter: what begins one, what is left out, what the speaker alone sees."""

import importlib.util
import re
from pathlib import Path

import nbformat
import pytest
from nbformat import v4

from qpm_lib.report import slides_html
from qpm_lib.report.slides import slide_cells

SCRIPT = Path(__file__).resolve().parents[2] / "data_scripts" / "make_slides.py"


def chapter(folder):
    """A chapter as it is after its execution."""
    picture = v4.new_output("display_data", {"image/png": "iVBORw0KGgo="})
    printed = v4.new_output("stream", text="seven classes")
    cells = [
        v4.new_markdown_cell("# 5. A chapter\n\n**Question.** Why?"),
        v4.new_code_cell("n = 3", metadata={"tags": ["parameters"]}),
        v4.new_markdown_cell("## Set-up"),
        v4.new_code_cell("import secret", outputs=[picture]),
        v4.new_markdown_cell("## The score\n\nIt is $x^2$."),
        v4.new_code_cell("hidden = 1", outputs=[printed]),
        v4.new_code_cell("by_hand = 2", metadata={"tags": ["lesson"]}, outputs=[printed]),
        v4.new_markdown_cell("**How to read it.** From left to right.\n\n## Quiz\n\n1. Why?"),
        v4.new_code_cell("nothing = 0"),
    ]
    path = folder / "05_chapter.ipynb"
    nbformat.write(v4.new_notebook(cells=cells), path)
    return path


def test_sections_begin_slides_and_text_after_results_is_for_the_speaker(tmp_path):
    cells = slide_cells(nbformat.read(chapter(tmp_path), as_version=4).cells)
    found = [(cell.metadata.slideshow.slide_type, cell.source.splitlines()[0]) for cell in cells]
    assert found == [
        ("slide", "# 5. A chapter"),
        ("subslide", "import secret"),
        ("slide", "## The score"),
        ("-", "hidden = 1"),
        ("subslide", "by_hand = 2"),
        ("notes", "**How to read it.** From left to right."),
        ("slide", "## Quiz"),
    ]


def test_a_page_shows_code_that_teaches_and_only_the_results_of_the_rest(tmp_path):
    page = slides_html(chapter(tmp_path), reveal="my_reveal")
    shown = re.sub(r"<[^>]+>", "", page.partition("<body")[2])
    assert "by_hand" in shown
    assert not {"hidden", "secret", "nothing"} & set(re.findall(r"\w+", shown))
    assert shown.count("seven classes") == 2
    assert "<math" in page
    assert "my_reveal/dist/reveal.js" in page
    assert re.search(r"<aside class=.notes.>.*From left to right", page, re.DOTALL)


def test_the_script_writes_a_page_for_each_chapter_and_says_when_there_is_none(tmp_path, capsys):
    spec = importlib.util.spec_from_file_location("make_slides", SCRIPT)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    with pytest.raises(SystemExit, match="1"):
        script.main([str(tmp_path)])
    assert "no executed chapters" in capsys.readouterr().err
    (tmp_path / "notebooks").mkdir()
    chapter(tmp_path / "notebooks")
    script.main([str(tmp_path)])
    assert [path.name for path in (tmp_path / "slides").iterdir()] == ["05_chapter.slides.html"]
