"""Failures of the machine: killed processes, files that were cut short, a full disk, a clock that was turned back.

This is the fast part; `make faults` kills the real chapters at random moments (`harness.py`).
"""

import ctypes
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest

from qpm_lib.cli import main
from qpm_lib.core.artifacts import read_json
from qpm_lib.core.profiles import load_profile
from qpm_lib.runs.chapters import CHAPTERS
from qpm_lib.runs.files import listing
from qpm_lib.runs.folder import RunFolder, open_run

TRAIN = """
import sys, torch
from pathlib import Path
from qpm_lib.core import load_profile
import qpm_lib.core.checkpoints as checkpoints
from qpm_lib.features import TensorStore
import qpm_lib
checkpoints._EVERY = 0.0
torch.set_num_threads(1)
g = torch.Generator().manual_seed(0)
n = 1200
labels = torch.arange(n) % 6
patches = torch.randn(n, 64, 24, generator=g) + labels[:, None, None]
store = TensorStore(patches, patches[:, 0].contiguous(), labels, class_names=tuple("abcdef"))
config = load_profile("smoke", **{"dense.epochs": 4, "dense.dropout": 0.3})
place = Path(sys.argv[1])
model, _ = qpm_lib.train_dense(store, config, checkpoint=place if len(sys.argv) > 2 else None)
model.save(place.parent / "model")
print("finished")
"""


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name != ".lock"}


def train(*arguments):
    command = [sys.executable, "-c", TRAIN, *arguments]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def test_a_training_that_is_killed_again_and_again_ends_as_if_nothing_had_happened(tmp_path):
    assert train(str(tmp_path / "whole" / "training.safetensors")).wait() == 0
    place, kills, seen = tmp_path / "killed" / "training.safetensors", 0, None
    while True:
        process = train(str(place), "kept")
        while process.poll() is None and kills < 2:
            time.sleep(0.02)
            now = place.stat().st_mtime_ns if place.exists() else None
            if now != seen:  # it has come further than the last one
                seen = now
                time.sleep(0.1)
                process.kill()
                kills += process.wait() == -signal.SIGKILL
                break
        if process.wait() == 0:
            break
    assert kills == 2
    names = sorted(p.name for p in (tmp_path / "whole" / "model").iterdir())
    for name in names:
        assert (tmp_path / "killed" / "model" / name).read_bytes() == (tmp_path / "whole" / "model" / name).read_bytes()


LIMITED = """
import resource, signal, sys
from pathlib import Path
from qpm_lib.cli import main
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
sys.exit(main(["run", "--profile", "smoke", "--out", sys.argv[1], "--to", "01"]))
"""


def test_a_full_disk_is_one_error_and_leaves_nothing_half_written(tmp_path):
    """No file may become larger than 200 kB: the first shard of the features does not fit."""
    environment = {**os.environ, "QPM_CACHE": str(tmp_path / "cache")}
    shutil.copytree(os.environ["QPM_CACHE"], tmp_path / "cache", ignore=shutil.ignore_patterns("features*", "chapters"))
    command = [sys.executable, "-c", LIMITED, str(tmp_path / "run")]
    process = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert process.returncode == 1
    assert "chapter 01_frozen_features" in process.stderr
    assert "File too large" in process.stderr
    left = [p for p in (tmp_path / "cache").rglob("*") if p.is_file() and p.name.startswith(".shard")]
    assert not left
    assert not list((tmp_path / "cache").rglob("shard-*.safetensors"))
    assert main(["run", "--profile", "smoke", "--out", str(tmp_path / "run"), "--to", "01"]) == 0


def without_root():
    """Permissions do not bind root: give that up before the command starts."""
    ctypes.CDLL(None).prctl(24, 1)  # PR_CAPBSET_DROP, CAP_DAC_OVERRIDE


@pytest.mark.skipif(sys.platform != "linux", reason="capabilities are those of Linux")
def test_folders_that_lose_their_permission_are_named_and_nothing_is_lost(tmp_path):
    run, cache = tmp_path / "run", tmp_path / "cache"
    shutil.copytree(os.environ["QPM_CACHE"], cache, ignore=shutil.ignore_patterns("chapters"))
    RunFolder.create(run, load_profile("smoke"))
    (run / "selection.json").write_text("{}")
    before = contents(run)
    command = [sys.executable, "-c", "import sys; from qpm_lib.cli import main; sys.exit(main())"]
    command += ["run", "--profile", "smoke", "--to", "01", "--out", str(run)]
    for folder, words in ((run, "run folder"), (cache, "cache folder")):
        folder.chmod(0o555)
        process = subprocess.run(
            command,
            env={**os.environ, "QPM_CACHE": str(cache)},
            preexec_fn=without_root,
            capture_output=True,
            text=True,
            check=False,
        )
        folder.chmod(0o755)
        assert process.returncode == 1
        assert f"{words} {folder} cannot be written (Permission denied)" in process.stderr
        assert len(process.stderr.strip().splitlines()) == 1
        assert contents(run) == before
        assert len(before) == 2


@pytest.mark.chain
def test_every_artefact_that_is_cut_short_is_made_again(smoke, smoke_copy, capsys):
    """One after the other; the chapters are taken from those that were kept when the run was made."""
    results, count = read_json(smoke / "result.json"), 0
    for chapter in CHAPTERS:
        for name in results[chapter.name]["files"]:
            path = smoke_copy / name
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 3])
            count += 1
    assert count > 40
    assert main(["run", "--profile", "smoke", "--out", str(smoke_copy)]) == 0
    assert capsys.readouterr().out.count("taken") == len(CHAPTERS)
    for name in listing(smoke):
        if not name.endswith(".ipynb"):
            assert (smoke_copy / name).read_bytes() == (smoke / name).read_bytes(), name
    assert (smoke_copy / "report" / "explorer.html").exists()


@pytest.mark.chain
def test_a_clock_that_was_turned_back_runs_nothing_again(smoke_copy, capsys):
    for path in smoke_copy.rglob("*"):
        os.utime(path, (0, 0))
    assert main(["run", "--profile", "smoke", "--out", str(smoke_copy)]) == 0
    assert capsys.readouterr().out.count("skipped") == len(CHAPTERS)
    assert open_run(smoke_copy, "smoke").load_model() is not None
