"""The runner on small notebooks of its own; the real chapters are in test_chapters.py."""

import os
import re

import nbformat
import pytest
from filelock import FileLock
from small_course import write_chapter

from qpm_lib.cli.run import _Teller
from qpm_lib.core.artifacts import read_json
from qpm_lib.core.profiles import load_profile
from qpm_lib.runs import execution
from qpm_lib.runs.chapters import check_parameters, find_chapter
from qpm_lib.runs.execution import ChapterError, ChapterReport, run_chapters
from qpm_lib.runs.files import listing
from qpm_lib.runs.folder import RunFolder, open_run
from qpm_lib.runs.store import ChapterStore
from qpm_lib.runs.watching import ChapterProgress


def statuses(reports):
    return [r.status for r in reports]


def new_run(tmp_path, **settings):
    return RunFolder.create(tmp_path / "run", load_profile("smoke", **settings))


def test_chapters_run_once_and_again_only_where_something_changed(small_course, tmp_path):
    folder, chain = small_course
    run = new_run(tmp_path)
    assert statuses(run_chapters(run)) == ["done"] * 3
    assert {p.name for p in (run.path / "notebooks").iterdir()} == {f"{c.name}.ipynb" for c in chain}
    result = read_json(run.path / "result.json")
    assert all(
        result[c.name]["status"] == "done"
        and result[c.name]["seconds"] > 0
        and result[c.name]["figures"] == {"answer": 1}
        for c in chain
    )
    assert statuses(run_chapters(run)) == ["skipped"] * 3
    run = new_run(tmp_path, **{"fine_tune.epochs": 2})
    assert statuses(run_chapters(run)) == ["skipped", "skipped", "done"]
    run = new_run(tmp_path, **{"fine_tune.epochs": 2, "dense.epochs": 2})
    assert statuses(run_chapters(run, parameters={chain[2].name: {"answer": 5}})) == ["skipped", "done", "done"]
    assert run.results[chain[2].name]["figures"] == {"answer": 5}
    write_chapter(folder, chain[2], "2 + 2")
    assert statuses(run_chapters(run)) == ["skipped", "skipped", "done"]
    for damage in ("dense/model.json", "dense/model.safetensors"):
        (run.path / damage).write_text("{half")
        assert statuses(run_chapters(run)) == ["skipped", "done", "skipped"]
        (run.path / damage).unlink()
        assert statuses(run_chapters(run)) == ["skipped", "done", "skipped"]
    assert statuses(run_chapters(run, start=chain[1].name)) == ["skipped", "done", "done"]
    assert statuses(run_chapters(run, only=chain[2].name)) == ["done"]


def test_a_chapter_that_raises_is_named_and_its_copy_kept(small_course, tmp_path):
    folder, chain = small_course
    write_chapter(folder, chain[1], "raise KeyError('no such bird')")
    run = new_run(tmp_path)
    with pytest.raises(
        ChapterError, match=r"chapter 02_dense_model, cell 2: KeyError: 'no such bird'\n.*02_dense_model\.failed\.ipynb"
    ):
        run_chapters(run)
    kept = nbformat.read(run.path / "notebooks" / "02_dense_model.failed.ipynb", as_version=4)
    assert any(o.output_type == "error" for c in kept.cells if c.cell_type == "code" for o in c.outputs)
    assert [run.results.get(c.name, {}).get("status") for c in chain] == ["done", "failed", None]
    write_chapter(folder, chain[1])
    assert statuses(run_chapters(run)) == ["skipped", "done", "done"]
    assert not list((run.path / "notebooks").glob("*failed*"))


def test_a_chapter_without_its_last_cell_has_not_finished(small_course, tmp_path):
    folder, chain = small_course
    book = nbformat.read(folder / f"{chain[1].name}.ipynb", as_version=4)
    book.cells = book.cells[:-1]
    nbformat.write(book, folder / f"{chain[1].name}.ipynb")
    with pytest.raises(ChapterError, match="without its result"):
        run_chapters(new_run(tmp_path))


def test_a_killed_kernel_is_no_success(small_course, tmp_path):
    folder, chain = small_course
    write_chapter(folder, chain[1], "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)")
    run = new_run(tmp_path)
    with pytest.raises(Exception, match="died"):
        run_chapters(run)
    assert run.results[chain[1].name]["status"] == "failed"
    write_chapter(folder, chain[1])
    assert statuses(run_chapters(run)) == ["skipped", "done", "done"]


def test_ctrl_c_is_recorded_and_the_run_goes_on_later(small_course, tmp_path, monkeypatch):
    _, chain = small_course
    execute = execution._execute

    def interrupted(run, chapter, *rest):
        if chapter.name == chain[1].name:
            raise KeyboardInterrupt
        execute(run, chapter, *rest)

    monkeypatch.setattr(execution, "_execute", interrupted)
    run = new_run(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        run_chapters(run)
    assert run.results[chain[1].name]["status"] == "interrupted"
    monkeypatch.setattr(execution, "_execute", execute)
    assert statuses(run_chapters(run)) == ["skipped", "done", "done"]


def test_a_run_that_was_killed_starts_its_chapter_again(small_course, tmp_path):
    _, chain = small_course
    run = new_run(tmp_path)
    run_chapters(run)
    run.update_result(chain[1].name, status="running")
    (run.path / ".02_picture.png.1a_b2c3d.part").write_bytes(b"half")  # what it was writing
    assert statuses(run_chapters(run)) == ["skipped", "done", "skipped"]
    assert not list(run.path.rglob("*.part"))


def test_two_runs_in_one_folder(small_course, tmp_path):
    run = new_run(tmp_path)
    second = RunFolder(run.path, load_profile("smoke", seed=5))
    with FileLock(run.path / ".lock"), pytest.raises(RuntimeError, match="in use by another run"):
        run_chapters(second)
    assert open_run(run.path, "smoke").config.seed == 0
    assert statuses(run_chapters(second)) == ["done"] * 3
    assert open_run(run.path, "smoke").config.seed == 5


def test_the_chapters_are_never_the_run_folder(small_course, tmp_path):
    folder, chain = small_course
    before = (folder / f"{chain[0].name}.ipynb").read_bytes()
    with pytest.raises(ValueError, match="would overwrite the chapters"):
        run_chapters(RunFolder(tmp_path, load_profile("smoke")))
    assert (folder / f"{chain[0].name}.ipynb").read_bytes() == before
    assert not (tmp_path / "config.json").exists()


def test_only_needs_what_comes_before(small_course, tmp_path):
    _, chain = small_course
    with pytest.raises(ValueError, match=r"04_fine_tuning needs 02_dense_model.*without --only"):
        run_chapters(new_run(tmp_path), only=chain[2].name)


def test_a_run_can_stop_after_a_chapter(small_course, tmp_path):
    _, chain = small_course
    run = new_run(tmp_path)
    assert statuses(run_chapters(run, end=chain[1].name)) == ["done", "done"]
    assert chain[2].name not in run.results
    assert statuses(run_chapters(run)) == ["skipped", "skipped", "done"]
    assert statuses(run_chapters(run, start=chain[1].name, end=chain[1].name)) == ["skipped", "done"]
    with pytest.raises(ValueError, match="--only runs one chapter: leave --to out"):
        run_chapters(run, only=chain[1].name, end=chain[1].name)
    with pytest.raises(ValueError, match=r"--to 01 comes before chapter 04: choose a later one"):
        run_chapters(run, start=chain[2].name, end=chain[0].name)


def test_a_run_never_takes_over_a_folder_that_is_something_else(small_course, tmp_path):
    run = new_run(tmp_path)
    for name, option in (("run_folder", "--out"), ("profile", "--profile")):
        with pytest.raises(ValueError, match=f"{name!r} of 01_frozen_features is set by the run itself: use {option}"):
            run_chapters(run, parameters={"01_frozen_features": {name: "elsewhere"}})
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "config.json").write_text('{"my": "precious"}')
    with pytest.raises(ValueError, match="is not that of a run"):
        run_chapters(RunFolder.create(tmp_path / "mine", load_profile("smoke")))
    assert (tmp_path / "mine" / "config.json").read_text() == '{"my": "precious"}'
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    inside = RunFolder(pictures / "a", load_profile("folder", **{"data.root": str(pictures)}))
    with pytest.raises(ValueError, match="lies among the pictures of data.root"):
        inside.check_place()
    (run.path / "result.json").write_text('{"01_frozen_features": null}')
    with pytest.raises(ValueError, match=r"result.json is damaged .a chapter has no object."):
        run_chapters(run)


def test_unknown_chapters_and_parameters(small_course, tmp_path):
    folder, chain = small_course
    with pytest.raises(ValueError, match="unknown chapter '99'"):
        find_chapter("99")
    with pytest.raises(ValueError, match="has no parameter 'anwser': it has run_folder, profile, answer"):
        run_chapters(new_run(tmp_path), parameters={chain[0].name: {"anwser": 2}})
    check_parameters(folder / f"{chain[0].name}.ipynb", ["answer"])
    assert not (tmp_path / "run" / "result.json").exists()


def test_results_of_other_settings_are_not_used(tmp_path, trained, planted):
    store, _ = planted
    run = new_run(tmp_path)
    run.save_dense(trained[0])
    run.save_selection(trained[1])
    run.save_model(trained[2], store)
    assert run.load_model().class_names == tuple("abcd")
    run.load_dense()
    changed = new_run(tmp_path, **{"selection.gap": 0.1})
    changed.load_dense()
    with pytest.raises(ValueError, match=r"selection\.json was made with other settings.*run chapter 03"):
        changed.load_selection()
    with pytest.raises(ValueError, match=r"model was made with other settings.*run chapter 04"):
        changed.load_model()


def test_a_run_folder_remembers_its_settings(tmp_path):
    run = open_run(tmp_path / "a", "smoke")
    assert open_run(tmp_path / "a", "smoke").config == run.config == load_profile("smoke")
    assert open_run(tmp_path / "a").config == run.config  # whatever it is
    with pytest.raises(ValueError, match="belongs to profile 'smoke', not 'toy'"):
        open_run(tmp_path / "a", "toy")
    (tmp_path / "a" / "config.json").write_text("{")
    with pytest.raises(ValueError, match="damaged"):
        open_run(tmp_path / "a", "smoke")


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="cannot be written"):
        RunFolder.create(tmp_path / "file" / "run", load_profile("smoke"))


# -- command line


def test_too_many_classes_for_the_wanted_sets_are_found_before_training(tmp_path):
    settings = {"selection.n_features": 4, "selection.n_per_class": 4}
    with pytest.raises(
        ValueError, match=r"4 classes cannot have different sets .*=4.* only 1; raise selection.n_features"
    ):
        RunFolder(
            tmp_path,
            load_profile(
                "smoke", **settings, **{"data.n_species": 4, "data.train_per_class": 6, "data.test_per_class": 3}
            ),
        ).dataset()


def test_a_run_without_lesson_leaves_out_what_only_teaches(small_course, tmp_path):
    folder, chain = small_course
    book = nbformat.read(folder / f"{chain[0].name}.ipynb", as_version=4)
    book.cells.insert(
        2, nbformat.v4.new_code_cell("raise ValueError('this only teaches')", metadata={"tags": ["lesson"]})
    )
    nbformat.write(book, folder / f"{chain[0].name}.ipynb")
    run, bare = new_run(tmp_path), {chapter.name: {"lesson": False} for chapter in chain}
    assert statuses(run_chapters(run, parameters=bare)) == ["done"] * 3
    assert statuses(run_chapters(run, parameters=bare)) == ["skipped"] * 3
    copy = nbformat.read(run.path / "notebooks" / f"{chain[0].name}.ipynb", as_version=4)
    assert len(copy.cells) == len(book.cells)  # one less, and the injected parameters
    with pytest.raises(ChapterError, match="this only teaches"):
        run_chapters(run)


COUNT = "import time\nfrom qpm_lib.core import progress\nfor i in progress(range(6), 'counting'):\n    time.sleep(0.5)"


def test_a_run_tells_how_far_a_chapter_is(small_course, tmp_path):
    folder, chain = small_course
    write_chapter(folder, chain[0], COUNT)
    told = []
    run_chapters(new_run(tmp_path), end=chain[0].name, on_progress=told.append)
    loops = [found.loop for found in told if found.loop]
    assert {(what, total) for what, _, total, _ in loops} == {("counting", 6)}
    done = [number for _, number, *_ in loops]
    assert done == sorted(done)
    assert done[-1] > done[0]
    assert loops[-1][3] == pytest.approx(0.5 * (6 - done[-1]), abs=0.6)
    last = [found for found in told if found.loop][-1]
    assert (last.cell, last.cells) == (3, 4)  # the parameters, those that papermill adds, and the loop
    assert re.match(r"cell 3 of 4: counting \d of 6, 0:0\d left \(0:\d\d\)", str(last))
    assert "QPM_PROGRESS_FILE" not in os.environ


def test_the_terminal_gets_a_moving_line_and_a_file_one_a_minute(monkeypatch, capsys):
    found = ChapterProgress("02_dense_model", 61.0, 7, 13, ("training", 4, 20, 80.0))
    report = ChapterReport("02_dense_model", "done", 70.0, {"dense_accuracy": 0.9})
    monkeypatch.setenv("COLUMNS", "120")
    for terminal in (True, False):
        teller = _Teller(["01_frozen_features", "02_dense_model"])
        teller.moving = terminal
        teller.start("02_dense_model")
        teller.progress(found._replace(seconds=3.0))
        teller.progress(found)
        teller.progress(found._replace(seconds=62.0))
        teller.done(report)
    printed = capsys.readouterr().out
    told = "cell 7 of 13: training 4 of 20, 1:20 left"
    assert printed.count(f"\r[2/2] 02_dense_model             {told}") == 3
    assert printed.count(f"\n    {told} (1:01)\n[2/2] 02_dense_model") == 1  # at a minute, and not after that
    assert printed.count("done       70.0 s   dense accuracy 0.9\n") == 2


# -- chapters that other runs have finished


@pytest.fixture
def kept(small_course, tmp_path):
    """A store, and a finished run whose chapters are in it; chapter 04 also changes what chapter 02 left."""
    folder, chain = small_course
    write_chapter(folder, chain[2], "open(run_folder + '/model-notes.txt', 'w').write('by 04')")
    store = ChapterStore(tmp_path / "store")
    run = RunFolder.create(tmp_path / "first", load_profile("smoke"))
    assert statuses(run_chapters(run, store=store)) == ["done"] * 3
    return store, run


def contents(run):
    """Every file of a run but the runner's own and executed copies, which hold times."""
    return {name: (run.path / name).read_bytes() for name in listing(run.path) if not name.endswith(".ipynb")}


def test_a_new_folder_takes_what_another_run_has_finished(kept, small_course, tmp_path):
    store, first = kept
    second = RunFolder.create(tmp_path / "second", load_profile("smoke"))
    assert statuses(run_chapters(second, store=store)) == ["taken"] * 3
    assert contents(second) == contents(first)
    assert statuses(run_chapters(second, store=store)) == ["skipped"] * 3
    copy, other = (run.path / "notebooks" / f"{small_course[1][0].name}.ipynb" for run in (second, first))
    assert copy.read_bytes() == other.read_bytes()
    third = RunFolder.create(tmp_path / "third", load_profile("smoke", **{"dense.epochs": 3}))
    assert statuses(run_chapters(third, store=store)) == ["taken", "done", "done"]
    assert statuses(run_chapters(third, store=store, start=small_course[1][1].name)) == ["skipped", "done", "done"]
    with_other_threads = RunFolder.create(tmp_path / "fourth", load_profile("smoke"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "7")
        fresh = ChapterStore(store.folder)
        assert statuses(run_chapters(with_other_threads, store=fresh, end=small_course[1][0].name)) == ["done"]


def test_damage_in_the_store_costs_a_chapter_and_is_never_taken(kept, tmp_path):
    store, first = kept
    cards = {read_json(p / "card.json")["chapter"]: p for p in store.folder.iterdir()}
    place = cards["02_dense_model"]
    (place / "0").write_bytes((place / "0").read_bytes()[:-1])
    (cards["04_fine_tuning"] / "card.json").write_text('{"files": {"../outside": "0"}, "seconds": 1, "figures": {}}')
    second = RunFolder.create(tmp_path / "second", load_profile("smoke"))
    assert statuses(run_chapters(second, store=store)) == ["taken", "done", "done"]
    assert contents(second) == contents(first)
    assert not (tmp_path / "outside").exists()
    third = RunFolder.create(tmp_path / "third", load_profile("smoke"))
    assert statuses(run_chapters(third, store=store)) == ["taken"] * 3


def test_what_somebody_changed_in_a_run_is_neither_overwritten_nor_kept(kept, tmp_path):
    """A name given to a feature stays, and other runs do not get it."""
    store, _ = kept
    run = RunFolder.create(tmp_path / "named", load_profile("smoke"))
    run_chapters(run, store=store, end="02_dense_model")
    (run.path / "dense" / "model.json").write_text('{"name": "mine"}')
    before = sorted(store.folder.iterdir())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("qpm_lib.runs.files.may_change", lambda name: True)
        assert statuses(run_chapters(run, store=store)) == ["skipped", "skipped", "done"]
    assert read_json(run.path / "dense" / "model.json") == {"name": "mine"}
    assert sorted(store.folder.iterdir()) == before


def test_a_file_that_changed_after_its_chapter_runs_it_again(small_course, tmp_path):
    run = new_run(tmp_path)
    run_chapters(run)
    (run.path / "dense" / "model.safetensors").write_bytes(b"")
    assert statuses(run_chapters(run)) == ["skipped", "done", "skipped"]


def test_a_store_that_cannot_be_written_stops_nothing(small_course, tmp_path, caplog):
    (tmp_path / "file").write_text("")
    run = new_run(tmp_path)
    assert statuses(run_chapters(run, store=ChapterStore(tmp_path / "file" / "store"))) == ["done"] * 3
    assert "is not kept for other runs" in caplog.text


@pytest.mark.parametrize(("deaths", "words"), [(2, ""), (3, "before replying"), (1, "Kernel died")])
def test_a_kernel_that_never_began_is_started_again(deaths, words, monkeypatch):
    """Two kernels may have taken the same port. One that died at work is not run again."""
    import papermill

    from qpm_lib.runs.watching import execute

    calls = []

    def started(source, target, **options):
        calls.append((source, target, options))
        if len(calls) <= deaths:
            raise RuntimeError(words if words == "Kernel died" else "Kernel died before replying to kernel_info")

    monkeypatch.setattr(papermill, "execute_notebook", started)
    if words:
        with pytest.raises(RuntimeError, match=words):
            execute("a.ipynb", "b.ipynb", cwd="here")
    else:
        execute("a.ipynb", "b.ipynb", cwd="here")
    assert calls == [("a.ipynb", "b.ipynb", {"cwd": "here"})] * min(3, 1 if words == "Kernel died" else deaths + 1)
