"""`qpm compare`: tables, figures and a page, and what is refused before anything is computed."""

import csv
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from qpm_lib.cli import main
from qpm_lib.comparison.result import Comparison
from qpm_lib.core.artifacts import read_json, write_json
from qpm_lib.core.profiles import load_profile
from qpm_lib.runs.chapters import CHAPTERS
from qpm_lib.runs.folder import RunFolder


@pytest.mark.chain
def test_tables_figures_and_a_page(smoke, tmp_path, capsys):
    out = tmp_path / "compared"
    names = "intrinsic,cdam,random,exact_answer,ranking"
    options = ["--models", "probe,qpm", "--pictures", "2", "--measures", "truth,holes_mean,cost", "--holes", "1"]
    assert main(["compare", str(smoke), "--methods", names, *options, "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "## CLS linear probe" in printed
    assert "## QPM" in printed
    assert "index.html" in printed
    found = Comparison.load(out)
    assert found.methods("qpm") == ["intrinsic", "cdam", "ranking", "random", "exact_answer"]
    assert found.methods("linear_probe") == ["cdam", "ranking", "random", "exact_answer"]
    assert found.pictures == 2
    assert found.scores["qpm", "cdam"]["holes_mean"].there.sum() == 1
    rows = list(csv.DictReader((out / "table.csv").read_text().splitlines()))
    exact = [float(r["value"]) for r in rows if r["method"] == "exact_answer" and r["measure"] == "correctness"]
    assert exact == pytest.approx([1, 1], abs=1e-3)
    pairs = list(csv.DictReader((out / "differences.csv").read_text().splitlines()))
    assert {row["measure"] for row in pairs} <= set(found.measures("qpm"))
    assert not any("exact_answer" in (row["better"], row["worse"]) for row in pairs)
    with Image.open(out / "scores.png") as figure:
        assert np.asarray(figure.convert("L")).std() > 5
    assert not (out / "agreement.csv").exists()  # two pictures say nothing of it
    text = (out / "index.html").read_text()
    for picture in re.findall(r'src="([^"]+\.jpg)"', text):
        assert (out / picture).exists()
    assert len(list((out / "side_by_side").glob("*.jpg"))) == 4


@pytest.mark.chain
def test_a_comparison_that_is_kept_is_what_the_report_shows(smoke, tmp_path, capsys):
    run = Path(shutil.copytree(smoke, tmp_path / "run"))
    page = run / "report" / "side_by_side.html"
    before = page.read_text()
    options = ["--models", "qpm", "--pictures", "3", "--methods", "intrinsic,centre", "--measures", "form", "--report"]
    assert main(["compare", str(run), *options, "--out", str(tmp_path / "out")]) == 0
    assert "kept for the report of" in capsys.readouterr().out
    assert main(["run", "--profile", "smoke", "--out", str(run)]) == 0
    assert capsys.readouterr().out.count("skipped") == len(CHAPTERS)
    assert "3 test pictures" in page.read_text()
    assert "3 test pictures" not in before
    card = read_json(run / "compared" / "comparison.json")
    write_json(run / "compared" / "comparison.json", {**card, "made_by": "other settings"})
    assert main(["run", "--profile", "smoke", "--out", str(run)]) == 0
    assert "3 test pictures" not in page.read_text()
    assert main(["compare", str(run), str(run), *options, "--out", str(tmp_path / "out")]) == 1
    assert "--report keeps the table in one run, and 2 were given" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--pictures", "0"], "--pictures (=0) must be at least 1"),
        (["--holes", "0"], "--holes (=0) must be at least 1"),
        (["--measures", "beauty"], "unknown measure 'beauty': choose from truth, holes, form, cost"),
        (["--methods", "cdam,magic"], "unknown explanation method 'magic': choose from intrinsic"),
        (["--models", "sldd"], "no run has a model 'sldd': choose from linear_probe, dense, qpm"),
        (["--methods", " , "], "names nothing"),
        (["--out", "{run}/model"], "belongs to the run"),
        (["{here}/nothing"], "is no run folder (config.json is missing)"),
    ],
)
def test_mistakes_are_refused_before_anything_is_drawn(options, said, tmp_path, capsys):
    run = RunFolder.create(tmp_path / "run", load_profile("smoke"))
    given = [option.format(run=run.path, here=tmp_path) for option in options]
    out = [] if "--out" in given else ["--out", str(tmp_path / "out")]
    assert main(["compare", str(run.path), *given, *out]) == 1
    assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
