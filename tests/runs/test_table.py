"""The comparison table: which runs make one row, what a cell says, and what is refused."""

import csv
import io

import pytest

from qpm_lib.cli import main
from qpm_lib.core.artifacts import write_json
from qpm_lib.core.profiles import load_profile
from qpm_lib.metrics.evaluation import MEASURES
from qpm_lib.runs.folder import RunFolder
from qpm_lib.runs.formats import to_csv, to_markdown
from qpm_lib.runs.published import PUBLISHED
from qpm_lib.runs.table import read_runs, table


def result(accuracy, **others):
    values = dict.fromkeys(MEASURES, 0.5) | {"accuracy": accuracy, "plausibility": None} | others
    return {
        "values": values,
        "intervals": {"accuracy": [accuracy - 0.1, accuracy + 0.1]},
        "notes": {"plausibility": "no masks here"},
    }


def finished(folder, accuracies, **settings):
    run = RunFolder.create(folder, load_profile("smoke", **settings))
    run.save_metrics({name: result(a) for name, a in accuracies.items()})
    return run.path


@pytest.fixture
def runs(tmp_path):
    found = []
    for seed, (probe, qpm) in enumerate(((0.6, 0.8), (0.7, 0.9))):
        found.append(finished(tmp_path / f"q{seed}", {"linear_probe": probe, "dense": 0.5, "qpm": qpm}, seed=seed))
        settings = {"seed": seed, "selection.method": "sldd"}
        found.append(finished(tmp_path / f"s{seed}", {"linear_probe": probe, "dense": 0.5, "sldd": 0.4}, **settings))
    return found


def test_rows_are_methods_and_cells_are_means_over_seeds(runs):
    rows = table(read_runs(runs))
    assert [row.label for row in rows] == ["CLS linear probe", "dense model", "SLDD", "QPM"]
    probe, qpm = rows[0].cells["accuracy"], rows[3].cells["accuracy"]
    assert probe.mean == pytest.approx(0.65)
    assert probe.seeds == 2  # the same probe stands in two runs of a seed
    assert qpm.mean == pytest.approx(0.85)
    assert qpm.spread == pytest.approx(0.0707, abs=1e-4)
    assert rows[0].cells["plausibility"].mean is None


def test_other_settings_are_other_rows_and_say_so(runs, tmp_path):
    runs.append(finished(tmp_path / "other", {"qpm": 0.7}, **{"selection.n_features": 8}))
    labels = [row.label for row in table(read_runs(runs))]
    assert "QPM (selection.n_features=10)" in labels
    assert "QPM (selection.n_features=8)" in labels


def test_markdown_has_footnotes_and_published_values_and_no_nan(runs):
    text = to_markdown(table(read_runs(runs)))
    assert "| QPM | 2 | 85.0 ± 7.1 % | not available [1] |" in text
    assert "[1] no masks here." in text
    assert "| QPM (DINOv2) | 88.3 % | 95.0 % |" in text
    assert "not given" in text
    assert "nan" not in text.lower()


def test_the_sheet_holds_every_cell(runs):
    lines = list(csv.DictReader(io.StringIO(to_csv(table(read_runs(runs))))))
    measured = [line for line in lines if line["source"] == "measured"]
    assert len(measured) == 4 * len(MEASURES)
    chosen = next(line for line in measured if line["method"] == "QPM" and line["measure"] == "accuracy")
    assert float(chosen["mean"]) == pytest.approx(0.85)
    assert chosen["seeds"] == "2"
    assert len(lines) - len(measured) == sum(5 * len(methods) for methods in PUBLISHED.values())


def test_the_command_writes_three_files(runs, tmp_path, capsys):
    assert main(["evaluate", "--table", *map(str, runs), "--out", str(tmp_path / "t")]) == 0
    assert "± 7.1 %" in capsys.readouterr().out
    assert {p.name for p in (tmp_path / "t").iterdir()} == {"table.md", "table.csv", "table.png"}
    assert (tmp_path / "t" / "table.png").stat().st_size > 5000


def test_unfinished_runs_are_refused_before_anything_is_written(runs, tmp_path, capsys):
    (runs[0] / "metrics.json").unlink()
    assert main(["evaluate", "--table", *map(str, runs), "--out", str(tmp_path / "t")]) == 1
    assert "holds no finished run" in capsys.readouterr().err
    assert not (tmp_path / "t").exists()
    shapes = ({"values": {"accuracy": "high"}}, {"intervals": {"accuracy": 0.5}}, {"notes": []})
    shapes = [{"models": {"qpm": {**result(0.5), **wrong}}} for wrong in shapes]
    for damaged in ([], {}, {"models": {}}, {"models": {"qpm": {"accuracy": 0.5}}}, *shapes):
        write_json(runs[0] / "metrics.json", damaged)
        assert main(["evaluate", "--table", str(runs[0]), "--out", str(tmp_path / "t")]) == 1
        assert "run chapter 06 again" in capsys.readouterr().err
    assert not (tmp_path / "t").exists()


def test_a_folder_in_the_place_of_a_table_is_found_first(runs, tmp_path, capsys):
    (tmp_path / "t" / "table.png").mkdir(parents=True)
    assert main(["evaluate", "--table", *map(str, runs), "--out", str(tmp_path / "t")]) == 1
    assert "table.png is a folder" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "t").iterdir()] == ["table.png"]


def test_measures_of_other_settings_are_refused(runs, tmp_path, capsys):
    """A run that was given new settings and then stopped still has the measures of the old ones."""
    RunFolder.create(runs[0], load_profile("smoke", seed=7))
    assert main(["evaluate", "--table", *map(str, runs), "--out", str(tmp_path / "t")]) == 1
    assert "was made with other settings" in capsys.readouterr().err


def test_sid_of_another_k_is_another_row(tmp_path):
    folders = [finished(tmp_path / f"k{k}", {"dense": 0.5}, **{"seed": k, "selection.n_per_class": k}) for k in (2, 3)]
    rows = table(read_runs(folders))
    assert [row.label for row in rows] == [
        "dense model (selection.n_per_class=2)",
        "dense model (selection.n_per_class=3)",
    ]


def test_other_data_are_another_table(tmp_path):
    folders = [finished(tmp_path / f"s{s}", {"qpm": 0.5}, **{"data.seed": s}) for s in (3, 4)]
    text = to_markdown(table(read_runs(folders)))
    assert "(data.seed=3)**" in text
    assert "(data.seed=4)**" in text
