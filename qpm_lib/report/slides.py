"""Executed chapters as slides, by rules: a section begins a slide, figures and what is printed follow below it, and
text between them becomes the speaker's notes.
"""

import re
from pathlib import Path
from typing import Any

from qpm_lib.report.notebooks import with_mathml

_HIDDEN = "hidden"
_LEFT_OUT = ("## Set-up", "## Save")


def slide_cells(cells: list[Any]) -> list[Any]:
    """Cells of an executed chapter with the slide each belongs to, as nbconvert reads it.

    Markdown is cut at its headings. Code is shown where it teaches (tag `lesson`), otherwise only what it printed or
    drew; cells without a result are left out, and so is what a chapter prepares and saves.
    """
    import nbformat

    found = []
    for cell in cells:
        if cell.cell_type != "markdown":
            found += _code(cell)
            continue
        for text in re.split(r"^(?=## )", cell.source, flags=re.MULTILINE):
            if text.strip() and not text.startswith(_LEFT_OUT):
                kind = "slide" if text.startswith("#") else "notes"
                found.append(nbformat.v4.new_markdown_cell(text, metadata={"slideshow": {"slide_type": kind}}))
    return found


def _code(cell: Any) -> list[Any]:
    """The cell if it has something to show."""
    outputs = [output for output in cell.get("outputs", ()) if output.output_type != "error"]
    if not outputs:
        return []
    figure = any("image/png" in output.get("data", {}) for output in outputs)
    tags = cell.metadata.get("tags", [])
    cell.metadata.slideshow = {"slide_type": "subslide" if figure or "lesson" in tags else "-"}
    if "lesson" not in tags:
        cell.metadata.tags = [*tags, _HIDDEN]
    return [cell]


def slides_html(notebook: Path, *, reveal: str | None = None) -> str:
    """An executed notebook as a page of slides (reveal.js, through nbconvert).

    Parameters
    ----------
    reveal : address or folder of reveal.js; by default the public one that nbconvert names, so that the page needs a
        network when it is shown.
    """
    import nbformat
    from nbconvert import SlidesExporter
    from traitlets.config import Config

    book = nbformat.read(notebook, as_version=4)
    book.cells = slide_cells(book.cells)
    for cell in book.cells:
        if cell.cell_type == "markdown":
            cell.source = with_mathml(cell.source)
    book.metadata.pop("widgets", None)
    config = Config({"TagRemovePreprocessor": {"enabled": True, "remove_input_tags": {_HIDDEN}}})
    settings = {"reveal_scroll": True, "reveal_number": "c/t", "reveal_width": "1200", "reveal_height": "760"}
    settings |= {"reveal_url_prefix": reveal} if reveal else {}
    exporter = SlidesExporter(config=config, exclude_input_prompt=True, exclude_output_prompt=True, **settings)
    return exporter.from_notebook_node(book)[0]
