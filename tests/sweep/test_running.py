"""A sweep over tiny chapters: each executed once, the files of single runs, and failures that stay where they are."""

import contextlib
import gc
import json
import os
import resource
import signal
import subprocess
import sys
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import psutil
import pytest
from distributed import Client, KilledWorker, LocalCluster
from jupyter_core.utils import ensure_event_loop
from small_course import write_chapter

from qpm_lib.cli import main
from qpm_lib.runs import execution
from qpm_lib.runs.execution import run_chapters
from qpm_lib.runs.files import listing
from qpm_lib.runs.folder import RunFolder
from qpm_lib.runs.store import ChapterStore, this_computer
from qpm_lib.sweep import running
from qpm_lib.sweep.cluster import Workers, start_workers, threads_each
from qpm_lib.sweep.plan import plan_sweep
from qpm_lib.sweep.points import read_points
from qpm_lib.sweep.running import run_sweep

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning")
WRITE = (
    "import json, pathlib\nconfig = json.loads((pathlib.Path(run_folder) / 'config.json').read_text())\n"
    "(pathlib.Path(run_folder) / 'note-{name}.txt').write_text(str(config{what}))"
)


def collect():
    """Chapters that are executed in threads leave event loops to the garbage collector: have it done here."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        gc.collect()


@pytest.fixture(scope="module")
def workers():
    """A thread in the place of processes, so that it sees the tiny chapters. The main thread has an event loop of its
    own, as after a chapter that was executed in it.
    """
    ensure_event_loop()
    options = {"n_workers": 1, "threads_per_worker": 1, "processes": False, "dashboard_address": ":0"}
    with LocalCluster(**options) as cluster, Client(cluster) as client:
        yield Workers(client, 1, "here", 1)
    collect()


@pytest.fixture
def course(small_course, monkeypatch):
    """Chapters that write what they depend on; reports of such runs have nothing to show."""
    folder, chain = small_course
    for chapter, what in zip(chain, ("['data']['kind']", "['seed']", "['fine_tune']['epochs']"), strict=True):
        write_chapter(folder, chapter, WRITE.format(name=chapter.name, what=what))
    monkeypatch.setattr(running, "build_report", lambda run, parameters: None)
    executed, execute = [], execution._execute

    def counted(run, chapter, *rest):
        executed.append((chapter.name, run.path.name))
        return execute(run, chapter, *rest)

    monkeypatch.setattr(execution, "_execute", counted)
    yield folder, chain, executed
    collect()


def sweep(points, out, workers, store, **options):
    plan = plan_sweep(points, store)
    return run_sweep(points, plan, out, workers, store, **options)


def contents(folder):
    return {name: (folder / name).read_bytes() for name in listing(folder) if not name.endswith(".ipynb")}


def test_a_sweep_executes_each_chapter_once_and_makes_what_single_runs_make(course, workers, tmp_path):
    *_, executed = course
    points = read_points("smoke", grid={"seed": ["0", "1"], "fine_tune.epochs": ["2", "3"]})
    store, told = ChapterStore(tmp_path / "store", "here"), []
    assert sweep(points, tmp_path / "out", workers, store, on_done=told.append) == {}
    assert (
        sorted(name for name, _ in executed) == ["01_frozen_features"] + ["02_dense_model"] * 2 + ["04_fine_tuning"] * 4
    )
    assert [done.what for done in told].count("report") == 4
    del executed[:]
    for point in points[-1:]:
        single = RunFolder.create(tmp_path / "single" / point.name, point.config)
        run_chapters(single)
        assert contents(single.path) == contents(tmp_path / "out" / point.name)
        assert {e["status"] for e in json.loads((single.path / "result.json").read_text()).values()} == {"done"}
    assert len(executed) == 3
    del executed[:]
    assert sweep(points, tmp_path / "out", workers, store) == {}
    assert sweep(points, tmp_path / "elsewhere", workers, store) == {}
    assert not executed


def test_a_point_whose_chapter_raises_fails_alone(course, workers, tmp_path):
    folder, chain, executed = course
    body = WRITE.format(name="x", what="['seed']") + "\nassert config['seed'] != 1, 'seed 1 is broken'"
    write_chapter(folder, chain[1], body)
    points = read_points("smoke", grid={"seed": ["0", "1"]})
    store, told = ChapterStore(tmp_path / "store", "here"), []
    failed = sweep(points, tmp_path / "out", workers, store, on_done=told.append)
    assert list(failed) == [points[1].name]
    assert "chapter 02_dense_model" in failed[points[1].name]
    assert "seed 1 is broken" in failed[points[1].name]
    assert [done.status for done in told].count("failed") == 1  # said once, not again for what would have followed
    assert (tmp_path / "out" / points[1].name / "notebooks" / "02_dense_model.failed.ipynb").exists()
    write_chapter(folder, chain[1], WRITE.format(name="x", what="['seed']"))
    del executed[:]
    assert sweep(points, tmp_path / "out", workers, store) == {}
    assert all((tmp_path / "out" / p.name / "note-x.txt").read_text() == p.settings["seed"] for p in points)


def test_a_disk_that_is_full_for_one_chapter_costs_its_point_alone(course, workers, tmp_path):
    """No file may become larger than 200 kB, for the kernel of the chapter as for its worker."""
    folder, chain, _ = course
    large = WRITE.format(name="x", what="['seed']") + "\n(pathlib.Path(run_folder) / 'x').write_bytes(bytes(300_000))"
    write_chapter(folder, chain[1], large.replace("300_000", "300_000 * config['seed']"))
    points = read_points("smoke", grid={"seed": ["0", "1"]})
    store, (soft, hard) = ChapterStore(tmp_path / "store", "here"), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, hard))
    try:
        failed = sweep(points, tmp_path / "out", workers, store)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(failed) == [points[1].name]
    assert "File too large" in failed[points[1].name]
    assert sweep(points, tmp_path / "out", workers, store) == {}
    assert [(tmp_path / "out" / point.name / "x").stat().st_size for point in points] == [0, 300_000]


def test_two_sweeps_at_once_share_a_store_and_do_not_disturb_each_other(course, workers, tmp_path):
    points = read_points("smoke", grid={"seed": ["0", "1"], "fine_tune.epochs": ["2", "3"]})
    stores = [ChapterStore(tmp_path / "store", "here") for _ in range(2)]
    options = {"n_workers": 1, "threads_per_worker": 1, "processes": False, "dashboard_address": ":0"}
    with LocalCluster(**options) as cluster, Client(cluster) as client, ThreadPoolExecutor(2) as pool:
        both = [workers, Workers(client, 1, "here", 1)]
        jobs = [pool.submit(sweep, points, tmp_path / n, w, s) for n, w, s in zip("ab", both, stores, strict=True)]
        assert [job.result() for job in jobs] == [{}, {}]
    for point in points:
        assert contents(tmp_path / "a" / point.name) == contents(tmp_path / "b" / point.name)
    assert not list((tmp_path / "store").rglob("*.part"))


def test_a_chapter_in_which_workers_die_says_what_may_be_missing():
    """As when the memory of a worker is limited, and its chapter needs more."""
    killed = KilledWorker("02_dense_model-1", SimpleNamespace(address="tcp://1"), 3)
    words = running._error(SimpleNamespace(exception=lambda: killed), "02_dense_model")
    assert words == "02_dense_model: one worker after another died in it (too little memory?)"


def test_processes_are_started_checked_and_named(tmp_path, monkeypatch):
    with start_workers(1, folders=[tmp_path / "shared"]) as found:
        assert (found.count, list((tmp_path / "shared").iterdir())) == (1, [])
        assert found.threads >= 1
        there = {"scheduler": found.client.scheduler.address, "folders": [tmp_path / "shared"]}
        with monkeypatch.context() as patch:
            patch.setattr("qpm_lib.sweep.cluster.VERSION", "9.9")
            with (
                pytest.raises(RuntimeError, match=r"has other versions: qpm_lib .* \(here 9.9\)"),
                start_workers(**there),
            ):
                pass
        monkeypatch.setattr("pathlib.Path.touch", lambda self: None)  # the file is not where the worker looks
        with pytest.raises(RuntimeError, match=r"does not see .*shared"), start_workers(**there):
            pass
        monkeypatch.setattr("qpm_lib.sweep.cluster._look", lambda *_: os.kill(os.getpid(), signal.SIGKILL))
        with pytest.raises(RuntimeError, match="a worker was lost before it began"), start_workers(**there):
            pass


INTERRUPTED = """
import signal, time
from qpm_lib.sweep import start_workers
if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # background commands of a shell ignore it
    try:
        with start_workers(1):
            print("ready", flush=True)
            time.sleep(60)
    except KeyboardInterrupt:
        print("interrupted")
"""


def test_an_interrupt_given_twice_ends_everything_without_a_word_of_the_workers(tmp_path):
    (tmp_path / "script.py").write_text(INTERRUPTED)
    command = [sys.executable, str(tmp_path / "script.py")]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen(command, **pipes, start_new_session=True)
    assert process.stdout.readline() == "ready\n"
    for _ in range(2):
        os.killpg(process.pid, signal.SIGINT)
        time.sleep(0.2)
    assert process.communicate(timeout=60) == ("interrupted\n", "")
    assert process.returncode == 0
    late = time.monotonic() + 20
    while members(process.pid) and time.monotonic() < late:
        time.sleep(0.1)
    assert not members(process.pid)


def members(group):
    """Processes of a group that have not ended."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(ProcessLookupError, psutil.NoSuchProcess):
            if os.getpgid(process.pid) == group and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process.pid)
    return found


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--grid", "seed=0,,1"], "holds an empty value"),
        (["--grid", "seed"], "must look like KEY=VALUE"),
        (["--workers", "0"], r"--workers (=0) must be at least 1"),
        (["--scheduler", "tcp://127.0.0.1:9"], "the scheduler tcp://127.0.0.1:9 does not answer"),
        (["--scheduler", "nowhere"], "the scheduler nowhere does not answer"),
        (["--set", "data.kind=folder"], "data.root is empty"),
        (["--to", "77"], "unknown chapter '77'"),
    ],
)
def test_bad_sweeps_are_refused_in_one_line(arguments, words, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("qpm_lib.sweep.cluster._PATIENCE", 1)
    assert main(["sweep", "--profile", "smoke", "--out", str(tmp_path / "out"), *arguments]) == 1
    error = capsys.readouterr().err
    assert words in error
    assert len(error.strip().splitlines()) == 1


def test_a_dry_run_knows_what_its_workers_have_made(monkeypatch):
    """They share the cores, so that their chapters have other names than those of a run with all threads."""
    monkeypatch.setattr("os.cpu_count", lambda: 6)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    seen = this_computer("cpu", threads_each(2))
    assert seen != this_computer("cpu")
    monkeypatch.setenv("OMP_NUM_THREADS", "3")  # as each of two workers has it
    assert seen == this_computer("cpu")


def test_a_dry_run_lists_and_writes_nothing(tmp_path, capsys):
    grid = ["--grid", "seed=0,1", "--grid", "selection.method=qpm,sldd", "--to", "03"]
    assert main(["sweep", "--profile", "smoke", "--out", str(tmp_path / "out"), *grid, "--dry-run"]) == 0
    printed = capsys.readouterr().out
    assert "4 points, 7 distinct chapters" in printed
    assert not (tmp_path / "out").exists()
