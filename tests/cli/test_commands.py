"""The `qpm` command: errors in one line, help that teaches, and the doctor."""

import pytest
from PIL import Image

from qpm_lib.cli import main
from qpm_lib.runs.execution import ChapterError


@pytest.fixture
def faulty(tmp_path):
    """A class folder without pictures, a damaged list, and one that names a picture that is not there."""
    folder = tmp_path / "faulty"
    for name in ("a", "b"):
        (folder / "pictures" / name).mkdir(parents=True)
    for number in range(2):
        Image.new("RGB", (8, 8)).save(folder / "pictures" / "a" / f"{number}.png")
    (folder / "damaged.csv").write_text("file,label\npictures/a/0.png,x\npictures/a/1.png\n")
    files = ["pictures/a/0.png,x", "pictures/a/1.png,x", "pictures/a/2.png,y", "pictures/a/3.png,y"]
    (folder / "missing.csv").write_text("file,label\n" + "\n".join(files))
    return folder


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--profile", "big"], "unknown profile 'big'"),
        (["--set", "dense.epoch=3"], "unknown setting 'dense.epoch': did you mean dense.epochs"),
        (["--set", "dense.epochs"], "must look like KEY=VALUE"),
        (["--set", "dense.epochs=x"], "whole number"),
        (["--from", "77"], "unknown chapter '77'"),
        (["--only", "x"], "unknown chapter 'x'"),
        (["--param", "05.nothing=1"], "has no parameter 'nothing'"),
        (["--param", "answer=1"], "must name a chapter"),
        (["--set", "device=cuda:9"], "not available"),
        (["--set", "data.n_species=5"], "must be an even number"),
        (["--set", "selection.n_features=4", "--set", "selection.n_per_class=4"], "there are only 1; raise"),
        (["--set", "backbone.name=resnet"], "unknown backbone 'resnet'"),
        (["--set", "backbone.weights={folder}/none.pth"], "none.pth') does not exist"),
        (["--set", "data.kind=folder"], "data.root is empty"),
        (["--set", "data.kind=folder", "--set", "data.root={folder}/none"], "is not a folder"),
        (["--set", "data.kind=folder", "--set", "data.root={folder}/pictures"], "b holds 0 pictures"),
        (["--set", "data.kind=csv", "--set", "data.root={folder}/damaged.csv"], "damaged.csv, line 3: 1 values"),
        (["--set", "data.kind=csv", "--set", "data.root={folder}/missing.csv"], "2.png is missing: restore it"),
        (["--set", "data.kind=cub", "--set", "data.root={folder}/pictures"], "images.txt"),
        (["--set", "data.root={folder}/pictures"], "holds no toy birds"),
    ],
)
def test_errors_are_one_line_and_exit_1(arguments, words, capsys, tmp_path, monkeypatch, faulty):
    """Before anything runs: no kernel is started, no folder made."""
    monkeypatch.setattr("papermill.execute_notebook", lambda *_, **__: pytest.fail("a kernel was started"))
    arguments = [text.format(folder=faulty) for text in arguments]
    assert main(["run", "--profile", "smoke", "--out", str(tmp_path / "run"), *arguments]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert words in error
    assert "Traceback" not in error
    assert not (tmp_path / "run").exists()


def test_a_cache_that_cannot_be_written_is_found_first(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr("papermill.execute_notebook", lambda *_, **__: pytest.fail("a kernel was started"))
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("QPM_CACHE", str(tmp_path / "file"))
    assert main(["run", "--profile", "smoke", "--out", str(tmp_path / "run")]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "set QPM_CACHE" in error


def test_a_report_that_cannot_be_made_does_not_hide_why_a_chapter_failed(monkeypatch, capsys, tmp_path):
    def failing(run, **options):
        raise ChapterError("chapter 02_dense_model, cell 2: boom")

    monkeypatch.setattr("qpm_lib.runs.run_chapters", failing)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "report").write_text("mine")
    assert main(["run", "--profile", "smoke", "--out", str(tmp_path / "run")]) == 1
    error = capsys.readouterr().err.splitlines()
    assert error[0].startswith("the report could not be made: ")
    assert error[1] == "error: chapter 02_dense_model, cell 2: boom"
    assert (tmp_path / "run" / "report").read_text() == "mine"


def test_help_teaches(capsys):
    for arguments, words in ((["--help"], "qpm run --profile toy"), (["run", "--help"], "selection.n_per_class")):
        with pytest.raises(SystemExit) as stop:
            main(arguments)
        assert stop.value.code == 0
        assert words in capsys.readouterr().out


def test_doctor_is_well_here(capsys):
    assert main(["doctor"]) == 0
    out = capsys.readouterr().out
    for name in ("Python", "torch", "device", "torchvision", "SCIP", "cache folder", "free disk"):
        assert name in out


def test_doctor_names_the_remedy(capsys, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("QPM_CACHE", str(tmp_path / "file" / "cache"))
    assert main(["doctor"]) == 1
    out = capsys.readouterr().out
    assert "FAIL cache folder" in out
    assert "remedy: set QPM_CACHE" in out


def test_a_broken_part_does_not_stop_the_doctor(monkeypatch):
    from qpm_lib.cli import doctor

    def broken():
        raise ImportError("no SCIP here")

    monkeypatch.setitem(doctor.CHECKS, "SCIP", broken)
    checks = {c.name: c for c in doctor.examine()}
    assert checks["SCIP"].found == "ImportError: no SCIP here"
    assert checks["SCIP"].remedy
    assert len(checks) == len(doctor.CHECKS)


def test_the_cache_is_shown_and_cleared_by_kind(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("QPM_CACHE", str(tmp_path))
    for name, size in (
        ("features-1", 3_000_000),
        ("features-2", 1_000_000),
        ("chapters", 500_000),
        ("exact_parts", 10),
    ):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_bytes(b"x" * size)
    (tmp_path / "mine.txt").write_text("not of the cache")
    assert main(["cache"]) == 0
    printed = capsys.readouterr().out
    assert [line.split()[:3] for line in printed.splitlines() if "features" in line] == [["features", "4.0", "MB"]]
    assert "4.5 MB in all" in printed
    assert main(["cache", "--clear", "features", "exact_parts"]) == 0
    assert "0.5 MB in all, 4.0 MB were deleted" in capsys.readouterr().out
    assert sorted(p.name for p in tmp_path.iterdir()) == ["chapters", "mine.txt"]
    assert main(["cache", "--clear", "feature"]) == 1
    assert "--clear 'feature' is no kind: choose from toybirds, features" in capsys.readouterr().err
    assert main(["cache", "--clear", "all"]) == 0
    assert [p.name for p in tmp_path.iterdir()] == ["mine.txt"]
