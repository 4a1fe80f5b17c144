"""The report of a run: a folder of static HTML pages, readable offline, with the figures inside."""

import html
import re
import shutil
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from qpm_lib.artifacts import read_json, write_atomically
from qpm_lib.metrics.evaluation import MEASURES
from qpm_lib.report_pages import PAGES, model_pages
from qpm_lib.runner import Chapter, chain
from qpm_lib.runs import RunFolder
from qpm_lib.table import METHODS, cell_text, single_cell

_MATH = re.compile(r"```.*?```|`[^`\n]*`|\$\$(?P<block>.+?)\$\$|(?<![\\$\w])\$(?P<inline>[^$\n]+?)\$(?![\d$])", re.DOTALL)
_STYLE = """
:root { --ink: #1c2430; --pale: #f3f5f8; --line: #d5dbe3; --accent: #0b5c8f; }
* { box-sizing: border-box; }
body { margin: 0; font: 16px/1.6 system-ui, sans-serif; color: var(--ink); background: #fff; }
nav { display: flex; flex-wrap: wrap; gap: .4rem 1.1rem; padding: .8rem 1.2rem; }
nav { background: var(--pale); border-bottom: 1px solid var(--line); }
nav a, a { color: var(--accent); }
main { max-width: 62rem; margin: 0 auto; padding: 1rem 1.2rem 4rem; }
img { max-width: 100%; height: auto; }
table { border-collapse: collapse; margin: 1rem 0; display: block; overflow-x: auto; }
th, td { padding: .3rem .8rem; border-bottom: 1px solid var(--line); text-align: left; }
.numbers :is(th, td):not(:first-child) { text-align: right; white-space: nowrap; }
thead th { background: var(--pale); }
pre { padding: .7rem .9rem; background: var(--pale); border: 1px solid var(--line); border-radius: 4px; }
pre { overflow-x: auto; font-size: 13.5px; line-height: 1.45; }
code { font-size: .92em; }
.jp-OutputArea-prompt, .jp-InputPrompt, .jp-OutputPrompt, .prompt, .anchor-link { display: none; }
figure { margin: 1.2rem 0; } figcaption { color: #556; font-size: .9em; }
.k { color: #8a3b00; } .s1, .s2 { color: #1d6b32; } .c1 { color: #667; font-style: italic; } .mi, .mf { color: #6b2c91; }
math[display=block] { margin: .8rem 0; overflow-x: auto; }
.chip { display: inline-block; margin: .15rem .2rem; padding: .1rem .6rem; border: 2px solid; border-radius: 1rem; }
section { border-top: 1px solid var(--line); }
details { border: 1px solid var(--line); border-radius: 4px; padding: .4rem .9rem; margin: .8rem 0; }
"""
_FIGURES = {
    "05_explanation": "One prediction: the features that made it, where they lie, and what each adds to the score.",
    "05_class_features": "Which class uses which feature.",
    "05_feature_examples": "The pictures on which each feature is strongest.",
    "06_comparison": "The three models side by side.",
}


def _page(title: str, body: str, chapters: Sequence[Chapter], pages: Collection[str] = ()) -> str:
    links = ['<a href="index.html">Report</a>'] + [f'<a href="{name}.html">{PAGES[name]}</a>' for name in pages]
    links += [f'<a href="{c.name}.html">{html.escape(_chapter_title(c.name))}</a>' for c in chapters]
    meta = '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
    head = f"<head>{meta}<title>{html.escape(title)}</title><style>{_STYLE}</style></head>"
    return f'<!doctype html><html lang="en">{head}<body><nav>{" ".join(links)}</nav><main>{body}</main></body></html>'


def _chapter_title(name: str) -> str:
    number, _, words = name.partition("_")
    return f"{number} {words.replace('_', ' ')}"


def _mathml(markdown: str) -> str:
    """Replace $...$ by MathML, which browsers draw without a script. Code is left alone."""
    from latex2mathml.converter import convert

    def replace(match: re.Match) -> str:
        block, inline = match.group("block"), match.group("inline")
        if block is None and inline is None:
            return match.group(0)
        return convert(" ".join((block or inline).split()), display="block" if block else "inline")

    return _MATH.sub(replace, markdown)


def _chapter_page(notebook: Path, chapters: Sequence[Chapter], pages: Collection[str]) -> str:
    """An executed notebook as one HTML page."""
    import nbformat
    from nbconvert import HTMLExporter

    book, heading = nbformat.read(notebook, as_version=4), ""
    for cell in book.cells:
        if cell.cell_type == "markdown":
            headings = re.findall(r"^#+ (.+)$", cell.source, re.MULTILINE)
            heading = headings[-1] if headings else heading
            cell.source = _mathml(cell.source)
        for output in cell.get("outputs", ()):
            if "image/png" in output.get("data", {}):
                output.metadata["image/png"] = {"alt": f"Figure of the section: {heading}"}
    exporter = HTMLExporter(template_name="basic", exclude_input_prompt=True, exclude_output_prompt=True)
    body, _ = exporter.from_notebook_node(book)
    return _page(_chapter_title(notebook.stem), body, chapters, pages)


def comparison_rows(metrics: dict[str, Any]) -> list[list[str]]:
    """Rows of the comparison table: a heading, then one row per model."""
    rows = [["model", *MEASURES.values()]]
    for key, name in METHODS.items():
        if key in metrics:
            rows.append([name, *(cell_text(single_cell(metrics[key], m), m) for m in MEASURES)])
    return rows


def _table(rows: list[list[str]]) -> str:
    head, *body = [[html.escape(str(cell)) for cell in row] for row in rows]
    lines = ["<thead><tr>" + "".join(f"<th>{c}</th>" for c in head) + "</tr></thead><tbody>"]
    lines += ["<tr>" + "".join(f"<td>{c}</td>" for c in row) + "</tr>" for row in body]
    return '<table class="numbers">' + "".join(lines) + "</tbody></table>"


def _summary(run: RunFolder) -> str:
    config, parts = run.config, []
    source = config.data.root or "rendered toy birds"
    facts = {"Profile": config.profile, "backbone": config.backbone.name, "pictures": source, "seed": config.seed}
    listed = ", ".join(f"{name} <b>{html.escape(str(value))}</b>" for name, value in facts.items())
    parts.append(f"<h1>Run {html.escape(run.path.name)}</h1><p>{listed}.</p>")
    try:
        results = run.load_metrics()
    except ValueError:  # not measured yet, or with other settings
        results = {}
    if results:
        parts.append("<h2>Results</h2>" + _table(list(map(list, zip(*comparison_rows(results), strict=True)))))
        parts.append(
            "<p>Every model is the last epoch's; nothing was chosen on test pictures. Plausibility compares with the chance value below it. "
            "In brackets: 95 % intervals, from resampling the test pictures.</p>"
        )
        reasons = dict.fromkeys(note for result in results.values() for note in result["notes"].values())
        parts += [f"<p>Not available: {html.escape(note)}.</p>" for note in reasons]
    selection = run.path / "selection.json"
    if selection.exists():
        s = read_json(selection)
        rows = [["selection", "value"], ["features selected", str(len(s["features"]))]]
        if "objective" in s:
            rows += [["objective", f"{s['objective']:.4f}"], ["proven bound", f"{s['bound']:.4f}"], ["gap", f"{100 * s['gap']:.3f} %"]]
        rows += [
            ["status" if "status" in s else "method", s.get("status", METHODS.get(s.get("method"), ""))],
            ["seconds", f"{s['seconds']:.1f}"],
        ]
        parts.append("<h2>Selection</h2>" + _table(rows))
    return "".join(parts)


def _chapter_table(run: RunFolder) -> str:
    rows = [["chapter", "status", "seconds"]]
    for chapter in chain(run.config):
        entry = run.results.get(chapter.name, {})
        rows.append([_chapter_title(chapter.name), entry.get("status", "not run"), str(entry.get("seconds", ""))])
    return "<h2>Chapters</h2>" + _table(rows)


def build_report(run: RunFolder) -> Path:
    """Write `report/` with an index, pages of features and classes, one page per executed chapter and the figures; return the index."""
    folder = run.path / "report"
    (folder / "figures").mkdir(parents=True, exist_ok=True)
    figures = []
    for path in sorted((run.path / "figures").glob("*.png")):
        shutil.copyfile(path, folder / "figures" / path.name)
        caption = _FIGURES.get(path.stem)
        if caption:
            figures.append(
                f'<figure><img src="figures/{path.name}" alt="{html.escape(caption)}"><figcaption>{html.escape(caption)}</figcaption></figure>'
            )
    chapters, pages = chain(run.config), model_pages(run.path / "model", folder)
    for name, body in pages.items():
        page = _page(PAGES[name], body, chapters, pages)
        write_atomically(folder / f"{name}.html", lambda temporary, page=page: temporary.write_text(page, encoding="utf-8"))
    for chapter in chapters:
        notebook = run.path / "notebooks" / f"{chapter.name}.ipynb"
        page = (
            _chapter_page(notebook, chapters, pages)
            if notebook.exists()
            else _page(_chapter_title(chapter.name), "<p>This chapter has not been run.</p>", chapters, pages)
        )
        write_atomically(folder / f"{chapter.name}.html", lambda temporary, page=page: temporary.write_text(page, encoding="utf-8"))
    index = folder / "index.html"
    page = _page(f"Run {run.path.name}", _summary(run) + "".join(figures) + _chapter_table(run), chapters, pages)
    write_atomically(index, lambda temporary: temporary.write_text(page, encoding="utf-8"))
    return index
