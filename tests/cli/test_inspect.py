"""`qpm inspect`: sheets, numbers, a watermark in one class, and what is refused."""

import json

import numpy as np
import pytest
from PIL import Image

import qpm_lib
from qpm_lib.cli import main
from qpm_lib.core.profiles import load_profile
from qpm_lib.data.toy.scenes import write_toybirds
from qpm_lib.explain.inspection import Inspection
from qpm_lib.runs.folder import RunFolder


def shows(path):
    with Image.open(path) as figure:
        return np.asarray(figure.convert("L")).std() > 10


@pytest.fixture
def mixed(tmp_path, toy):
    below = tmp_path / "pictures"
    below.mkdir()
    for row in range(3):
        toy.image(row).resize((100 + 30 * row, 90)).save(below / f"{row}.png")
    (below / "broken.jpg").write_bytes(b"\xff\xd8 no picture")
    return below


def test_any_folder_of_pictures(mixed, tmp_path, capsys):
    out = tmp_path / "inside"
    assert main(["inspect", str(mixed), "--k", "4", "--out", str(out)]) == 0
    printed = capsys.readouterr()
    assert "broken.jpg" in printed.err
    assert "tokens of high norm (over 4 times the median of their picture): 0.00 %" in printed.out
    assert not (out / "artefacts.png").exists()
    told = json.loads((out / "inspection.json").read_text())
    assert (told["k"], told["backbone"], len(told["pictures"]), len(told["skipped"])) == (4, "toy", 3, 1)
    assert [row["share"] for row in told["clusters"]] == sorted(
        (row["share"] for row in told["clusters"]), reverse=True
    )
    assert any(row["object"] for row in told["clusters"])
    assert shows(out / "pictures.png")
    assert shows(out / "clusters.png")
    assert not (out / "of_one_class.png").exists()
    found = Inspection.load(out)
    assert found.labels.shape == (3, 16, 16)


def test_tokens_of_high_norm_are_counted_and_shown(mixed, tmp_path, capsys, monkeypatch):
    load = qpm_lib.load_backbone

    def planted(*arguments, **options):
        backbone = load(*arguments, **options)

        def blow_up(_, __, tokens):
            tokens = tokens.clone()
            tokens[:, backbone.n_prefix + 37] *= 20
            return tokens

        backbone.blocks[-1].register_forward_hook(blow_up)
        return backbone

    monkeypatch.setattr(qpm_lib, "load_backbone", planted)
    out = tmp_path / "inside"
    assert main(["inspect", str(mixed), "--out", str(out)]) == 0
    told = json.loads((out / "inspection.json").read_text())
    assert told["tokens_of_high_norm"] == pytest.approx(1 / 256)
    assert Inspection.load(out).artefacts.tolist() == [1, 1, 1]
    assert "0.39 % (artefacts.png)" in capsys.readouterr().out
    orange = (np.asarray(Image.open(out / "artefacts.png").convert("RGB")).astype(int) - (213, 94, 0)).__abs__().sum(2)
    assert (orange < 150).sum() > 100
    monkeypatch.undo()
    assert main(["inspect", str(mixed), "--out", str(out)]) == 0
    assert not (out / "artefacts.png").exists()


def test_a_watermark_is_found_in_a_folder_of_classes(tmp_path, capsys):
    write_toybirds(tmp_path / "birds", n_species=4, train_per_class=10, test_per_class=1, marked=2)
    out = tmp_path / "inside"
    assert main(["inspect", str(tmp_path / "birds" / "images"), "--out", str(out)]) == 0
    best = json.loads((out / "inspection.json").read_text())["classes"][0]
    assert best["class"].startswith("003.")
    assert best["present"] > 0.9
    assert best["lead"] > max(0.4, best["by_lot"])
    printed = capsys.readouterr().out
    assert "most of one class alone: 003." in printed
    assert "exceeds what classes drawn by lot reach" in printed
    assert shows(out / "of_one_class.png")


def test_the_pictures_of_a_run(tmp_path, capsys):
    run = RunFolder.create(
        tmp_path / "run", load_profile("smoke", **{"data.train_per_class": 2, "data.test_per_class": 1})
    )
    before = (run.path / "config.json").read_bytes()
    assert main(["inspect", str(run.path), "--device", "cpu", "--out", str(tmp_path / "out")]) == 0
    assert len(Inspection.load(tmp_path / "out").names) == 12
    assert (
        "no search for clusters of one class: some class has 2 pictures here, and 8 are needed"
        in capsys.readouterr().out
    )
    assert (run.path / "config.json").read_bytes() == before
    assert main(["inspect", str(run.path), "--out", str(run.path / "clusters")]) == 1
    assert "lies in" in capsys.readouterr().err


def test_one_picture(mixed, tmp_path):
    assert main(["inspect", str(mixed / "0.png"), "--out", str(tmp_path / "one")]) == 0
    assert Inspection.load(tmp_path / "one").names == (str(mixed / "0.png"),)


def test_a_lot_of_pictures_is_drawn_by_seed(mixed, tmp_path):
    names = []
    for folder, seed in (("a", 1), ("b", 1)):
        main(["inspect", str(mixed), "--pictures", "2", "--seed", str(seed), "--out", str(tmp_path / folder)])
        names.append(json.loads((tmp_path / folder / "inspection.json").read_text())["pictures"])
    assert names[0] == names[1]
    assert len(names[0]) <= 2


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--k", "1"], "--k (=1) must be from 2 to 20"),
        (["--k", "21"], "--k (=21) must be from 2 to 20"),
        (["--pictures", "0"], "--pictures (=0) must be at least 1"),
        (["--batch-size", "0"], "--batch-size (=0) must be at least 1"),
        (["--seed", "-1"], "--seed (=-1) must not be negative"),
        (["--backbone", "nothing"], "unknown backbone 'nothing'"),
    ],
)
def test_bad_options_are_refused(options, said, mixed, tmp_path, capsys):
    assert main(["inspect", str(mixed), *options, "--out", str(tmp_path / "out")]) == 1
    assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_bad_places_are_refused(mixed, tmp_path, capsys):
    (tmp_path / "file").write_text("x")
    assert main(["inspect", str(mixed), "--out", str(tmp_path / "file" / "deeper")]) == 1
    assert "cannot be made" in capsys.readouterr().err
    assert main(["inspect", str(mixed), "--out", str(mixed / "deeper")]) == 1
    assert "lies in" in capsys.readouterr().err
    assert not (mixed / "deeper").exists()
    assert main(["inspect", str(tmp_path / "nothing"), "--out", str(tmp_path / "out")]) == 1
    assert "does not exist" in capsys.readouterr().err
    assert main(["inspect", str(mixed / "broken.jpg"), "--out", str(tmp_path / "out")]) == 1
    assert "none of 1 pictures can be used" in capsys.readouterr().err
    plain = tmp_path / "plain.png"
    Image.new("RGB", (20, 10), "grey").save(plain)
    assert main(["inspect", str(plain), "--out", str(tmp_path / "out")]) == 1
    assert "plain.png: one colour throughout" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
