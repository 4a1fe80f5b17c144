"""Executed chapters as pages: formulas without a script, widgets as links, figures with a text."""

import re
from pathlib import Path
from typing import Any

_MATH = re.compile(
    r"```.*?```|`[^`\n]*`|\$\$(?P<block>.+?)\$\$|(?<![\\$\w])\$(?P<inline>[^$\n]+?)\$(?![\d$])", re.DOTALL
)
_WIDGET = "application/vnd.jupyter.widget-view+json"


def with_mathml(markdown: str) -> str:
    """Replace $...$ by MathML, which browsers draw without a script. Code is left alone."""
    from latex2mathml.converter import convert

    def replace(match: re.Match) -> str:
        block, inline = match.group("block"), match.group("inline")
        if block is None and inline is None:
            return match.group(0)
        return convert(" ".join((block or inline).split()), display="block" if block else "inline")

    return _MATH.sub(replace, markdown)


def notebook_html(notebook: Path, *, explorer: bool) -> str:
    """An executed notebook as HTML; a widget becomes a link to the explorer where there is one."""
    import nbformat
    from nbconvert import HTMLExporter

    book, heading = nbformat.read(notebook, as_version=4), ""
    for cell in book.cells:
        if cell.cell_type == "markdown":
            headings = re.findall(r"^#+ (.+)$", cell.source, re.MULTILINE)
            heading = headings[-1] if headings else heading
            cell.source = with_mathml(cell.source)
        for output in cell.get("outputs", ()):
            _without_kernel(output, heading, explorer)
    book.metadata.pop("widgets", None)
    exporter = HTMLExporter(template_name="basic", exclude_input_prompt=True, exclude_output_prompt=True)
    return exporter.from_notebook_node(book)[0]


def _without_kernel(output: Any, heading: str, explorer: bool) -> None:
    content = output.get("data", {})
    if "image/png" in content:
        output.metadata["image/png"] = {"alt": f"Figure of the section: {heading}"}
    if _WIDGET in content:
        instead = ' Without a kernel: <a href="explorer.html">the explorer</a>.' if explorer else ""
        output["data"] = {"text/html": f"<p>A widget, alive in JupyterLab.{instead}</p>"}
