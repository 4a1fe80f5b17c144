"""The report of a run: a folder of static HTML pages, readable offline, with the figures inside."""

import html
import re
import shutil
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from qpm_lib.core import METHODS, read_json
from qpm_lib.metrics import MEASURES
from qpm_lib.model import DinoQPM
from qpm_lib.report.explorer_page import explorer_page
from qpm_lib.report.model_pages import ModelPages, Page, counted
from qpm_lib.runs import Chapter, RunFolder, Snapshot, cell_text, chain, current_chapters, is_whole, single_cell

_MATH = re.compile(
    r"```.*?```|`[^`\n]*`|\$\$(?P<block>.+?)\$\$|(?<![\\$\w])\$(?P<inline>[^$\n]+?)\$(?![\d$])", re.DOTALL
)


_STYLE = """
:root { --ink: #1c2430; --pale: #f3f5f8; --line: #d5dbe3; --accent: #0b5c8f; }
* { box-sizing: border-box; }
body { margin: 0; font: 16px/1.6 system-ui, sans-serif; color: var(--ink); background: #fff; }
nav { display: flex; flex-wrap: wrap; gap: .4rem 1.1rem; padding: .8rem 1.2rem; }
nav { background: var(--pale); border-bottom: 1px solid var(--line); }
nav a, a { color: var(--accent); unicode-bidi: isolate; }
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
h1 .chip, h2 .chip { font-weight: inherit; }
.tiles { display: flex; flex-wrap: wrap; gap: .8rem; margin: 1rem 0; }
.tiles > a, .tiles > div { flex: 1 1 11rem; padding: .7rem 1rem; border: 1px solid var(--line); border-radius: 8px; color: inherit; }
.tiles b { display: block; font-size: 1.7rem; line-height: 1.3; } .tiles a { text-decoration: none; } .tiles a b { color: var(--accent); }
.scroll { overflow: auto; max-height: 80vh; border: 1px solid var(--line); border-radius: 4px; padding: .5rem; } .scroll svg { display: block; }
svg a { fill: var(--accent); }
.wide { overflow-x: auto; } .wide img { max-width: none; display: block; }
.thumbs { display: flex; flex-wrap: wrap; gap: 4px; } .thumbs img { border: 3px solid transparent; border-radius: 4px; display: block; }
.thumbs img.wrong { border: 3px dashed #d55e00; }
.tree, .tree ul { padding-left: 1.1rem; } .tree ul { border-left: 2px solid var(--line); }
.chip { display: inline-block; margin: .15rem .2rem; padding: .1rem .6rem; border: 2px solid; border-radius: 1rem; }
section { border-top: 1px solid var(--line); }
h1, h2, h3, p, figcaption, li { overflow-wrap: anywhere; }
details { border: 1px solid var(--line); border-radius: 4px; padding: .4rem .9rem; margin: .8rem 0; }
"""


_WIDGET = "application/vnd.jupyter.widget-view+json"
_FIGURES = {
    "05_explanation": "One prediction: the features that made it, where they lie, and what each adds to the score.",
    "06_comparison": "The three models side by side.",
}


def _page(title: str, body: str, chapters: Sequence[Chapter], links: Mapping[str, str]) -> str:
    """A whole page; `links` are the pages beside the chapters, by file name."""
    listed = [f'<a href="{file}">{html.escape(name)}</a>' for file, name in links.items()]
    listed += [f'<a href="{c.name}.html">{html.escape(_chapter_title(c.name))}</a>' for c in chapters]
    meta = '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
    head = f"<head>{meta}<title>{html.escape(title)}</title><style>{_STYLE}</style></head>"
    return f'<!doctype html><html lang="en">{head}<body><nav>{" ".join(listed)}</nav><main>{body}</main></body></html>'


def _chapter_title(name: str) -> str:
    number, _, words = name.partition("_")
    return f"{number} {words.replace('_', ' ')}"


def with_mathml(markdown: str) -> str:
    """Replace $...$ by MathML, which browsers draw without a script. Code is left alone."""
    from latex2mathml.converter import convert

    def replace(match: re.Match) -> str:
        block, inline = match.group("block"), match.group("inline")
        if block is None and inline is None:
            return match.group(0)
        return convert(" ".join((block or inline).split()), display="block" if block else "inline")

    return _MATH.sub(replace, markdown)


def _chapter_page(notebook: Path, *, explorer: bool) -> str:
    """An executed notebook as the body of a page; a widget becomes a link to the explorer where there is one."""
    import nbformat
    from nbconvert import HTMLExporter

    book, heading = nbformat.read(notebook, as_version=4), ""
    for cell in book.cells:
        if cell.cell_type == "markdown":
            headings = re.findall(r"^#+ (.+)$", cell.source, re.MULTILINE)
            heading = headings[-1] if headings else heading
            cell.source = with_mathml(cell.source)
        for output in cell.get("outputs", ()):
            content = output.get("data", {})
            if "image/png" in content:
                output.metadata["image/png"] = {"alt": f"Figure of the section: {heading}"}
            if _WIDGET in content:
                instead = ' Without a kernel: <a href="explorer.html">the explorer</a>.' if explorer else ""
                output["data"] = {"text/html": f"<p>A widget, alive in JupyterLab.{instead}</p>"}
    book.metadata.pop("widgets", None)
    exporter = HTMLExporter(template_name="basic", exclude_input_prompt=True, exclude_output_prompt=True)
    return exporter.from_notebook_node(book)[0]


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


def _made(file: str, run: RunFolder, current: Collection[str]) -> str:
    """Name of the chapter that left a file, empty while what is there does not belong to the run of now."""
    return next((c.name for c in chain(run.config) if file in c.leaves and c.name in current), "")


def _tiles(
    run: RunFolder, results: Mapping[str, Any], selection: Mapping[str, Any], about: ModelPages | None, proof_in: str
) -> str:
    """The run at a glance: the figures that matter most, each with what it means."""
    tiles, method = [], run.config.selection.method
    if method in results:
        values, intervals = results[method]["values"], results[method]["intervals"]
        low, high = intervals.get("accuracy", (values["accuracy"],) * 2)
        tiles.append(
            (
                f"{100 * values['accuracy']:.1f} %",
                f"accuracy on test pictures (95 % interval {100 * low:.1f} to {100 * high:.1f})",
                "",
            )
        )
        if values.get("plausibility") is not None:
            chance = f" (by chance {100 * values['plausibility_chance']:.0f} %)"
            tiles.append(
                (f"{100 * values['plausibility']:.1f} %", f"of the explanation lies on the object{chance}", "")
            )
    if about:
        weight, wrong = about.weight, int((about.snapshot.labels != about.snapshot.predicted).sum())
        per_class = f"{weight.shape[1]} features for {weight.shape[0]} classes"
        tiles.append((f"{(weight != 0).sum(1).mean():.3g} per class", per_class, "classes.html"))
        tiles.append(
            (
                counted(wrong, "mistake", "mistakes"),
                f"in {len(about.snapshot.labels)} test pictures, with reasons",
                "mistakes.html",
            )
        )
    if "objective" in selection:
        proof = (
            ("proven optimal", "no selection is better")
            if selection["gap"] <= 0 or selection["status"] == "optimal"
            else (
                f"gap {100 * selection['gap']:.2f} %",
                "the selection is proven to be at most this far from the best one",
            )
        )
        tiles.append((*proof, f"{proof_in}.html"))
    boxes = [
        f'<a href="{link}"><b>{big}</b>{small}</a>' if link else f"<div><b>{big}</b>{small}</div>"
        for big, small, link in tiles
    ]
    return f'<div class="tiles">{"".join(boxes)}</div>' if boxes else ""


def _facts(run: RunFolder) -> str:
    config = run.config
    source = Path(config.data.root).resolve().name if config.data.root else "rendered toy birds"
    facts = {
        "Profile": config.profile,
        "method": METHODS[config.selection.method],
        "backbone": config.backbone.name,
        "pictures": source,
        "seed": config.seed,
    }
    return ", ".join(f"{name} <b>{html.escape(str(value))}</b>" for name, value in facts.items())


def _results(results: Mapping[str, Any]) -> str:
    missing: dict[str, list[str]] = {}
    for key, result in results.items():
        for measure, why in result["notes"].items():
            missing.setdefault(why, []).append(f"{MEASURES.get(measure, measure)} of the {METHODS.get(key, key)}")
    defined = any(result["values"].get("plausibility") is not None for result in results.values())
    chance = "Plausibility compares with the chance value below it. " if defined else ""
    return (
        "<h2>Results</h2>"
        + _table(list(map(list, zip(*comparison_rows(results), strict=True))))
        + f"<p>Every model is the last epoch's; nothing was chosen on test pictures. {chance}"
        "In brackets: 95 % intervals, from resampling the test pictures.</p>"
        + "".join(
            f"<p>Not available ({html.escape(', '.join(whose))}): {html.escape(why)}.</p>"
            for why, whose in missing.items()
        )
    )


def _selection(s: Mapping[str, Any]) -> str:
    rows = [["selection", "value"], ["features selected", str(len(s["features"]))]]
    if "objective" in s:
        rows += [
            ["objective", f"{s['objective']:.4f}"],
            ["proven bound", f"{s['bound']:.4f}"],
            ["gap", f"{100 * s['gap']:.3f} %"],
        ]
    rows += [
        ["status" if "status" in s else "method", s.get("status", METHODS.get(s.get("method"), ""))],
        ["seconds", f"{s['seconds']:.1f}"],
    ]
    return "<h2>Selection</h2>" + _table(rows)


def _index(run: RunFolder, about: ModelPages | None, current: Collection[str], figures: Collection[str]) -> str:
    """The run at a glance, the results, the proof, and the model as a whole."""
    results = run.load_metrics() if _made("metrics.json", run, current) else {}
    proof_in = _made("selection.json", run, current)
    selection = read_json(run.path / "selection.json") if proof_in else {}
    parts = [
        f"<h1>Run {html.escape(run.path.name)}</h1><p>{_facts(run)}.</p>",
        _tiles(run, results, selection, about, proof_in),
    ]
    if about:
        parts.append(
            '<p><a href="explorer.html"><b>Open the explorer</b></a>: flip through pictures, see which features fire where, switch them on and '
            "off, compare classes. It works offline.</p>"
        )
    for name, caption in _FIGURES.items():
        if f"{name}.png" in figures:
            words = html.escape(caption)
            parts.append(
                f'<figure><a href="figures/{name}.png"><img src="figures/{name}.png" alt="{words}"></a><figcaption>{words}</figcaption></figure>'
            )
    if about:
        parts.append(
            f"<h2>The whole model</h2><p>{about.matrix_words()} Names lead to "
            f'pages of their own; <a href="classes.html">classes</a> also has a tree of shared features.</p>{about.matrix()}'
        )
    if results:
        parts.append(_results(results))
    if selection:
        parts.append(_selection(selection))
    return "".join(parts) + _chapter_table(run, current)


def _chapter_table(run: RunFolder, current: Collection[str]) -> str:
    rows = [["chapter", "status", "seconds"]]
    for chapter in chain(run.config):
        entry = run.results.get(chapter.name, {})
        status = entry.get("status", "not run")
        status = "out of date" if status == "done" and chapter.name not in current else status
        rows.append([_chapter_title(chapter.name), status, str(entry.get("seconds", ""))])
    return "<h2>Chapters</h2>" + _table(rows)


def _agree(model: DinoQPM, snapshot: Snapshot) -> bool:
    """Whether the model would answer as the snapshot says."""
    scores = snapshot.values @ model.class_weight.numpy().T + model.head.bias.numpy()
    answered = scores[np.arange(len(scores)), snapshot.predicted[snapshot.kept]]
    return bool((answered >= scores.max(1) - 1e-3 * np.abs(scores).max()).all())


def _model_pages(run: RunFolder, folder: Path) -> ModelPages | None:
    """Pages of the model, its pictures copied into the report; None while there is no described model, or no snapshot of it."""
    try:
        snapshot, model = run.load_snapshot(), run.load_model().cpu()
    except ValueError:  # damaged: the chapter that makes it says so
        return None
    if not _agree(model, snapshot):
        return None
    shutil.copytree(run.path / "snapshot" / "pictures", folder / "pictures")
    if (run.path / "model" / "examples").is_dir():
        shutil.copytree(run.path / "model" / "examples", folder / "examples")
    return ModelPages(model, snapshot, folder)


def _chapter_body(run: RunFolder, chapter: Chapter, current: Collection[str], *, explorer: bool) -> str:
    notebook = run.path / "notebooks" / f"{chapter.name}.ipynb"
    if not is_whole(notebook):
        return "<p>This chapter has not been run.</p>"
    old = "<p><b>Out of date:</b> settings, this chapter or one before it changed after this copy was made. Run the chain again.</p>"
    return ("" if chapter.name in current else old) + _chapter_page(notebook, explorer=explorer)


def _write(run: RunFolder, folder: Path, current: Collection[str]) -> None:
    chapters, numbers = chain(run.config), {name.partition("_")[0] for name in current}
    (folder / "figures").mkdir(parents=True)
    figures = [path for path in sorted((run.path / "figures").glob("*.png")) if path.name.partition("_")[0] in numbers]
    for path in figures:
        shutil.copyfile(path, folder / "figures" / path.name)
    whole = _made("model/model.json", run, current) and _made("snapshot/snapshot.json", run, current)
    about, pages, links = _model_pages(run, folder) if whole else None, {}, {"index.html": "Report"}
    if about:
        pages = {"explorer.html": explorer_page(about.model, about.snapshot), **about.pages()}
        links |= {
            "explorer.html": "Explorer",
            "classes.html": "Classes",
            "features.html": "Features",
            "mistakes.html": "Mistakes",
        }
    for chapter in chapters:
        pages[f"{chapter.name}.html"] = Page(
            _chapter_title(chapter.name), _chapter_body(run, chapter, current, explorer=bool(about))
        )
    pages["index.html"] = Page(f"Run {run.path.name}", _index(run, about, current, {path.name for path in figures}))
    for file, page in pages.items():
        (folder / file).write_text(_page(page.title, page.body, chapters, links), encoding="utf-8")


def build_report(run: RunFolder, parameters: Mapping[str, Mapping[str, Any]] | None = None) -> Path:
    """Write `report/`: an index, the explorer, pages of classes, features and mistakes, one per executed chapter; return the index.

    The folder is replaced as a whole. Results that do not belong to the settings of now are left out.

    Parameters
    ----------
    parameters : notebook parameters by chapter name, as given to `runner.run_chapters`.

    Raises
    ------
    ValueError : when something that is no folder lies in its place.
    """
    folder, place = run.path / ".report", run.path / "report"
    if place.is_symlink() or (place.exists() and not place.is_dir()):
        raise ValueError(
            f"{place} is no folder, and the report goes there: move it away and run the same command again"
        )
    shutil.rmtree(folder, ignore_errors=True)
    try:
        _write(run, folder, current_chapters(run, parameters))
        if place.exists():
            shutil.rmtree(place)
        folder.replace(place)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return place / "index.html"
