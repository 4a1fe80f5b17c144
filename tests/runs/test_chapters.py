"""The real chapters: what their sources look like, and the whole chain on profile smoke."""

import importlib.util
import re
import shutil
import statistics
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import nbformat
import numpy as np
import papermill
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

import qpm_lib
from qpm_lib.cli import main
from qpm_lib.core.artifacts import read_json
from qpm_lib.core.config import RunConfig, stage_key
from qpm_lib.core.settings import config_from_dict
from qpm_lib.report.build import build_report
from qpm_lib.report.notebooks import with_mathml
from qpm_lib.runs.chapters import CHAPTERS, LESSON, SPARSE, notebooks_folder
from qpm_lib.runs.folder import RunFolder

EXPLORER, OWN, SETS = "07_saliency_explorer", "12_your_own_images", "13_hierarchies_and_sets"
BOOKS = {
    name: nbformat.read(notebooks_folder() / f"{name}.ipynb", as_version=4)
    for name in (*(c.name for c in (*CHAPTERS, SPARSE)), OWN)
}


@pytest.mark.parametrize("name", BOOKS)
def test_sources_follow_the_template(name):
    book = BOOKS[name]
    code = [c for c in book.cells if c.cell_type == "code"]
    text = [c for c in book.cells if c.cell_type == "markdown"]
    assert len(book.cells) <= 40
    assert all(not c.outputs and c.execution_count is None for c in code)
    lines = [len(c.source.strip().splitlines()) for c in code]
    assert statistics.median(lines) <= 6
    assert max(lines) <= 25
    assert sum(len(c.source.split()) for c in text) > sum(len(c.source.split()) for c in code)
    assert text[0].source.startswith("# ")
    for word in ("**Question.**", "**Inputs**", "**Outputs**", "**Run time**"):
        assert word in text[0].source
    everything = "\n".join(c.source for c in text)
    for word in ("## Exercise", "<details>", "## Recap", "**Next:**", "| symbol | variable |"):
        assert word in everything
    source = "\n".join(c.source for c in code)
    assert "assert_allclose" in source
    assert f'run.record("{name}"' in source
    assert "run.save_figure" in source


@pytest.mark.parametrize("name", BOOKS)
def test_parameters_are_few_flat_and_explained(name):
    cells = [c for c in BOOKS[name].cells if "parameters" in c.metadata.get("tags", [])]
    assert len(cells) == 1
    lines = cells[0].source.splitlines()
    assert len(lines) <= 8
    for line in lines:
        assert re.fullmatch(r'\w+ = ("[^"#]*"|-?[\d.]+|True|False)  # .+', line), line
    assert [line.split(" = ")[0] for line in lines[:2]] == ["run_folder", "profile"]


@pytest.mark.parametrize("name", [name for name in BOOKS if name != OWN])
def test_what_only_teaches_can_be_left_out(name):
    """The other cells need no name that only these cells define, and leave everything that a run keeps."""
    code = [cell for cell in BOOKS[name].cells if cell.cell_type == "code"]
    kept, lesson = ([c for c in code if (LESSON in c.metadata.get("tags", [])) is tagged] for tagged in (False, True))
    assert lesson
    saves = re.compile(r"run\.(save_(?!figure)|record)|write_json")
    assert not [c.id for c in lesson if saves.search(c.source)]
    source = "\n\n".join(["from IPython.display import display", *(cell.source for cell in kept)])
    command = [sys.executable, "-m", "ruff", "check", "--isolated", "--select", "F821", "--quiet", "-"]
    found = subprocess.run(command, input=source, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stdout


def test_a_chapter_that_runs_of_all_seeds_share_depends_on_none():
    """Its name in the store of finished chapters does not hold the seed."""
    one, other = RunConfig(seed=0), RunConfig(seed=1)
    shared = [c.name for c in CHAPTERS if stage_key(one, c.stage) == stage_key(other, c.stage)]
    assert shared == ["01_frozen_features"]
    assert not [cell.id for name in shared for cell in BOOKS[name].cells if "config.seed" in cell.source]


@pytest.mark.chain
def test_the_chain_leaves_a_complete_run_folder(smoke):
    result = read_json(smoke / "result.json")
    assert [result[c.name]["status"] for c in CHAPTERS] == ["done"] * len(CHAPTERS)
    for path in (
        "config.json",
        "metrics.json",
        "selection.json",
        "model/model.json",
        "model/model.safetensors",
        "report/index.html",
    ):
        assert (smoke / path).exists()
    for chapter in CHAPTERS:
        book = nbformat.read(smoke / "notebooks" / f"{chapter.name}.ipynb", as_version=4)
        code = [c for c in book.cells if c.cell_type == "code"]
        assert all(c.execution_count for c in code)
        shown = [output.data for c in code for output in c.outputs if "data" in output]
        assert "image/png" in shown[0]  # where the chapter stands in the course
        assert not [data for data in shown if "<Figure" in data.get("text/plain", "") and "image/png" not in data]
        silent = [c.source for c in code if not any("image/png" in o.get("data", {}) for o in c.outputs)]
        saved = [name for source in silent for name in re.findall(r'run\.save_figure\([^"]*"(\w+)"', source)]
        hidden = [name for name in saved if (smoke / "figures" / f"{name}.png").exists()]
        assert not hidden, chapter.name  # a figure that is only written to a file is shown to nobody
        assert (smoke / "report" / f"{chapter.name}.html").exists()


@pytest.mark.chain
def test_every_figure_shows_something(smoke):
    figures = sorted((smoke / "figures").glob("*.png"))
    assert len(figures) >= 15
    for path in figures:
        pixels = np.asarray(Image.open(path).convert("RGB"))
        assert min(pixels.shape[:2]) > 100, path.name
        assert (pixels != 255).any(-1).mean() > 0.03, path.name


@pytest.mark.chain
def test_the_model_of_the_chain_is_what_it_claims(smoke):
    config = read_json(smoke / "config.json")
    model = qpm_lib.DinoQPM.load(smoke / "model").with_backbone(qpm_lib.load_backbone("toy"))
    weight = model.class_weight
    assert weight.shape == (config["data"]["n_species"], config["selection"]["n_features"])
    assert (weight.sum(1) == config["selection"]["n_per_class"]).all()
    assert len({tuple(row) for row in weight.tolist()}) == len(weight)
    run = qpm_lib.open_run(smoke, "smoke")
    dataset = run.dataset()
    store = run.features(dataset, run.backbone())
    reported = run.load_metrics()["qpm"]["values"]["accuracy"]
    assert qpm_lib.model.accuracy(model, store) == pytest.approx(reported)
    rows = dataset.test_rows[:4]
    explanation = model.explain([dataset.image(int(r)) for r in rows])
    logits = model.predict([dataset.image(int(r)) for r in rows]).logits
    total = explanation.contributions.sum(1) + explanation.constant
    torch.testing.assert_close(total, logits.amax(1), rtol=1e-4, atol=1e-4)
    assert reported > 2 / len(weight)


class Links(HTMLParser):
    def __init__(self):
        super().__init__()
        self.found, self.images_without_text = [], 0

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        self.found += [values[k] for k in ("href", "src") if k in values]
        self.images_without_text += tag == "img" and not values.get("alt")


def dead_links(report):
    """Links of all pages that lead nowhere, or out of the report."""
    dead = set()
    for page in report.glob("*.html"):
        links = Links()
        links.feed(page.read_text())
        targets = {link.split("#")[0] for link in links.found if not link.startswith("data:")}
        dead |= {(page.name, target) for target in targets if target and not (report / target).exists()}
    return dead


@pytest.mark.chain
def test_the_report_works_offline(smoke):
    for page in (smoke / "report").glob("*.html"):
        links = Links()
        links.feed(page.read_text())
        assert links.images_without_text == 0
        assert "Traceback" not in page.read_text()
        assert "<script" not in page.read_text() or page.name == "explorer.html"
        assert set(re.findall(r"<(?:script|link)[^>]* (?:src|href)=\"([^\"]*)", page.read_text())) <= {
            "style.css",
            "explorer.css",
            "explorer.js",
        }
    assert not dead_links(smoke / "report")
    index = (smoke / "report" / "index.html").read_text()
    model = qpm_lib.DinoQPM.load(smoke / "model")
    assert 'href="explorer.html"' in index
    kept = f"<b>{100 * model.manifest.locality['kept']:.0f} %</b>of a feature is left when only the place it shows"
    assert kept in index
    for f in range(len(model.features)):
        page = (smoke / "report" / f"feature_{f:02d}.html").read_text()
        assert re.search(rf"<title>feature {f}( \(proposed: [^<]*\))?<", page)
        assert f"examples/feature_{f:02d}.jpg" in page
    for c, name in enumerate(model.class_names):
        page = (smoke / "report" / f"class_{c:03d}.html").read_text()
        assert f"<h1>{name}</h1>" in page
        assert page.split("<figure>")[0].count('class="chip"') == model.n_per_class
        assert f"strips/class_{c:03d}.jpg" in page or "0 of 8 test pictures" in page
    assert "CLS linear probe" in index
    assert "proven bound" in index
    assert "<math" in (smoke / "report" / "02_dense_model.html").read_text()
    assert "$$" not in (smoke / "report" / "02_dense_model.html").read_text()
    assert sum(f.stat().st_size for f in (smoke / "report").rglob("*") if f.is_file()) < 30e6


def statuses(report):
    table = (report / "index.html").read_text().rsplit("<h2>Chapters</h2>", 1)[1]
    return re.findall(r"<tr><td>(\d\d) [^<]*</td><td>([^<]*)</td>", table)


@pytest.mark.chain
def test_results_of_other_settings_are_not_reported(smoke_copy):
    assert not dead_links(smoke_copy / "report")
    config = read_json(smoke_copy / "config.json")
    config["selection"]["n_features"] += 2
    report = build_report(RunFolder(smoke_copy, config_from_dict(config))).parent
    later = [(c.name[:2], "out of date") for c in CHAPTERS[2:]]
    assert statuses(report) == [("01", "done"), ("02", "done"), *later]
    text = (report / "index.html").read_text()
    assert "proven optimal" not in text
    assert "accuracy on test pictures" not in text
    assert {path.name[:2] for path in (report / "figures").iterdir()} == {"01", "02"}
    assert not (report / "mistakes.html").exists()
    assert "Out of date" in (report / "03_quadratic_programme.html").read_text()
    assert "Out of date" not in (report / "02_dense_model.html").read_text()
    assert not dead_links(report)
    config["selection"]["method"] = "sldd"
    report = build_report(RunFolder(smoke_copy, config_from_dict(config))).parent
    assert "proven optimal" not in (report / "index.html").read_text()
    assert not dead_links(report)


@pytest.mark.chain
@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("selection.json", "{"),
        ("notebooks/03_quadratic_programme.ipynb", '{"cells": ['),
        ("snapshot/snapshot.json", "[]"),
        ("metrics.json", '{"made_by": "', ),
        ("model/model.json", ""),
        ("explanations/maps.json", "{"),
        ("explanations/maps.safetensors", "none"),
    ],
)  # fmt: skip
def test_a_damaged_file_costs_only_what_was_in_it(smoke_copy, file, content):
    (smoke_copy / file).write_text(content)
    report = build_report(qpm_lib.open_run(smoke_copy, "smoke")).parent
    assert not dead_links(report)
    assert ("01", "done") in statuses(report)
    assert sum(status == "done" for _, status in statuses(report)) < len(CHAPTERS)


@pytest.mark.chain
def test_a_model_that_answers_otherwise_has_no_pages(smoke_copy):
    path = smoke_copy / "model" / "model.safetensors"
    weights = load_file(path)
    weights["head.weight"] = weights["head.weight"].roll(1, 0)
    save_file(weights, path)
    report = build_report(qpm_lib.open_run(smoke_copy, "smoke")).parent
    assert not (report / "mistakes.html").exists()
    assert not dead_links(report)


def chapter_lines(printed):
    """The line of each chapter that is done; one that takes a minute has more than one."""
    return [line for line in printed.splitlines() if line.startswith("[") and len(line.split()) > 2]


@pytest.mark.chain
def test_running_again_skips_everything_and_a_change_runs_what_depends_on_it(smoke_copy, capsys):
    smoke = smoke_copy
    assert main(["run", "--profile", "smoke", "--out", str(smoke)]) == 0
    assert capsys.readouterr().out.count("skipped") == len(CHAPTERS)
    changed = ["--set", "selection.n_per_class=2", "--to", "05"]  # the later ones follow like these, and take longer
    assert main(["run", "--profile", "smoke", "--out", str(smoke), *changed]) == 0
    lines = chapter_lines(capsys.readouterr().out)
    assert [line.split()[2] for line in lines] == ["skipped"] * 2 + ["done"] * 3
    model = qpm_lib.DinoQPM.load(smoke / "model")
    assert model.n_per_class == 2


def run_baseline(folder, capsys, method, statuses, *arguments):
    """The chapters with another method, and what must be the same for every method."""
    assert (
        main(["run", "--profile", "smoke", "--out", str(folder), "--set", f"selection.method={method}", *arguments])
        == 0
    )
    lines = chapter_lines(capsys.readouterr().out)
    assert [line.split()[2] for line in lines] == statuses
    assert "03_sparse_linear_model" in lines[2]
    results = qpm_lib.open_run(folder, "smoke").load_metrics()
    assert list(results) == ["linear_probe", "dense", method]
    weight = qpm_lib.DinoQPM.load(folder / "model").class_weight
    assert int((weight != 0).sum()) == 3 * len(weight)
    assert results[method]["values"]["accuracy"] > 2 / len(weight)
    title = {"sldd": "SLDD", "qsenn": "Q-SENN"}[method]
    assert f">{title}<" in (folder / "report" / "index.html").read_text()


@pytest.mark.chain
@pytest.mark.xdist_group("baseline")
def test_a_baseline_goes_through_all_chapters_without_what_only_teaches(tmp_path, capsys):
    run_baseline(tmp_path / "run", capsys, "sldd", ["done"] * (len(CHAPTERS) - 1), "--no-lesson")


@pytest.mark.chain
def test_a_baseline_is_one_setting_away(smoke_copy, capsys):
    """The later chapters are no different for it."""
    run_baseline(smoke_copy, capsys, "qsenn", ["skipped"] * 2 + ["done"] * 5, "--to", "07")


@pytest.mark.chain
def test_the_gallery_is_small_and_shows_the_run(smoke, tmp_path, capsys):
    """On a copy without a report it says what to do; files are small enough for a README."""
    spec = importlib.util.spec_from_file_location(
        "make_gallery", notebooks_folder().parent / "data_scripts" / "make_gallery.py"
    )
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    script.main([str(smoke), "--out", str(tmp_path / "gallery")])
    page = (tmp_path / "gallery" / "README.md").read_text()
    shown = re.findall(r"\]\((\w+\.jpg)\)", page)
    assert {
        "chain.jpg",
        "explanation.jpg",
        "class_comparison.jpg",
        "class_features.jpg",
        "features.jpg",
        "class.jpg",
    } <= set(shown)
    assert {path.name for path in (tmp_path / "gallery").iterdir()} == {"README.md", *shown}
    for name in shown:
        assert (tmp_path / "gallery" / name).stat().st_size < 200_000
        with Image.open(tmp_path / "gallery" / name) as image:
            assert image.width <= 1000
            assert np.asarray(image.convert("L")).std() > 10
    (tmp_path / "empty").mkdir()
    shutil.copy(smoke / "config.json", tmp_path / "empty")
    with pytest.raises(SystemExit, match="1"):
        script.main([str(tmp_path / "empty"), "--out", str(tmp_path / "none")])
    assert "finish the run first" in capsys.readouterr().err
    assert not (tmp_path / "none").exists()


def test_formulas_become_mathml_and_code_stays():
    text = with_mathml("Let $x_1$ be `$y$`.\n\n$$\\sum_p E[p]$$\n\n```python\nprint('$z$')\n```\ncosts $5 and $6.")
    assert text.count("<math") == 2
    assert "`$y$`" in text
    assert "print('$z$')" in text
    assert "costs $5 and $6." in text


@pytest.mark.chain
def test_your_own_pictures(tmp_path, capsys):
    """Chapter 12 on a folder with a broken file; its model then answers on the command line."""
    pictures = tmp_path / "my pictures"
    dataset = qpm_lib.load_dataset(
        qpm_lib.load_profile("smoke", **{"data.n_species": 4, "data.train_per_class": 10}).data
    )
    for file in dataset.files:
        target = pictures / Path(file).relative_to("images")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(dataset.root / file, target)
    (pictures / Path(dataset.files[0]).parent.name / "broken.jpg").write_bytes(b"nothing")
    values = {"run_folder": str(tmp_path / "run"), "profile": "smoke", "pictures": str(pictures)}
    book = notebooks_folder() / f"{OWN}.ipynb"
    papermill.execute_notebook(
        str(book), str(tmp_path / "out.ipynb"), parameters=values, cwd=str(tmp_path), progress_bar=False
    )
    figures = read_json(tmp_path / "run" / "result.json")[OWN]["figures"]
    assert figures["left_out"] == 1
    assert figures["pictures"] == len(dataset)
    assert main(["predict", str(tmp_path / "run"), str(pictures / Path(dataset.files[0]).parent.name)]) == 0
    out, err = capsys.readouterr()
    assert "because  feature" in out
    assert "broken.jpg: damaged" in err
    assert (tmp_path / "run" / "model" / "examples" / "feature_00.jpg").exists()


@pytest.mark.chain
def test_hierarchies_and_sets(smoke_copy, capsys):
    """Chapter 13 of the chain: its models promise a confidence on the command line."""
    figures = read_json(smoke_copy / "result.json")[SETS]["figures"]
    assert figures["accuracy"] > 0.5
    run = qpm_lib.open_run(smoke_copy, "smoke")
    picture = str(run.dataset().root / run.dataset().files[0])
    for name in ("model", "hierarchical"):
        assert main(["predict", str(smoke_copy / name), picture, "--confidence", "0.8"]) == 0
        assert "  possible  " in capsys.readouterr().out
    weight = qpm_lib.DinoQPM.load(smoke_copy / "hierarchical").class_weight
    shared = (weight @ weight.T).triu(1)
    assert int((shared == weight.sum(1)[0] - 1).sum()) >= 3
    for figure in ("13_tree", "13_sets"):
        pixels = np.asarray(Image.open(smoke_copy / "figures" / f"{figure}.png").convert("RGB"))
        assert (pixels != 255).any(-1).mean() > 0.03


@pytest.mark.chain
def test_the_explorer_notebook(smoke):
    """Chapter 7 of the chain; the widget's state survives in the executed copy."""
    assert read_json(smoke / "result.json")[EXPLORER]["figures"]["slider_ms"] > 0
    assert (smoke / "figures" / "07_blend.png").exists()
    book = nbformat.read(smoke / "notebooks" / f"{EXPLORER}.ipynb", as_version=4)
    states = book.metadata["widgets"]["application/vnd.jupyter.widget-state+json"]["state"].values()
    assert sum(state["model_name"] == "AnyModel" for state in states) >= 10
