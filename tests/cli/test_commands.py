"""The `qpm` command: errors in one line, help that teaches, and the doctor."""

import pytest

from qpm_lib.cli import main
from qpm_lib.runs.execution import ChapterError


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--profile", "big"], "unknown profile 'big'"),
        (["--set", "dense.epoch=3"], "unknown setting 'dense.epoch': did you mean dense.epochs"),
        (["--set", "dense.epochs"], "must look like KEY=VALUE"),
        (["--set", "dense.epochs=x"], "whole number"),
        (["--from", "09"], "unknown chapter '09'"),
        (["--only", "x"], "unknown chapter 'x'"),
        (["--param", "05.nothing=1"], "has no parameter 'nothing'"),
        (["--param", "answer=1"], "must name a chapter"),
        (["--set", "device=cuda:9"], "not available"),
    ],
)
def test_errors_are_one_line_and_exit_1(arguments, words, capsys, tmp_path):
    assert main(["run", "--profile", "smoke", "--out", str(tmp_path / "run"), *arguments]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert words in error
    assert "Traceback" not in error
    assert not (tmp_path / "run").exists()


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
