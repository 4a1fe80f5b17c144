"""`qpm explain`: figures, numbers and raw maps, and what is refused."""

import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from qpm_lib.cli import main
from qpm_lib.core.config import RankingConfig
from qpm_lib.explain.ranking.training import train_ranking
from qpm_lib.explain.registry import METHODS, make
from qpm_lib.explain.target import Target, concept_target
from qpm_lib.model.qpm import DinoQPM


@pytest.fixture(scope="module")
def folder(tmp_path_factory, untrained, backbone):
    path = tmp_path_factory.mktemp("run") / "model"
    untrained[0].save(path, backbone=backbone.fingerprint)
    return path


@pytest.fixture
def pictures(tmp_path, toy):
    below = tmp_path / "pictures"
    below.mkdir()
    toy.image(0).resize((200, 100)).save(below / "a.png")
    toy.image(5).save(below / "b ü.png")
    (below / "broken.jpg").write_bytes(b"\xff\xd8 no picture")
    return below


def test_maps_numbers_and_figures(folder, pictures, tmp_path, toy, backbone, capsys):
    out = tmp_path / "maps"
    methods = ["intrinsic", "cdam", "rollout", "random"]
    assert main(["explain", str(folder), str(pictures), "--methods", ",".join(methods), "--out", str(out)]) == 0
    printed = capsys.readouterr()
    assert printed.err.startswith("skipped ")
    told = json.loads((out / "maps.json").read_text())
    maps = load_file(out / "maps.safetensors")
    assert [p["number"] for p in told["pictures"]] == ["0001", "0002"]
    assert [s["file"].endswith("broken.jpg") for s in told["skipped"]] == [True]
    assert sorted(p.name for p in out.glob("*.png")) == ["0001_a.png", "0002_b ü.png"]
    model = DinoQPM.load(folder).with_backbone(backbone)
    image = Image.open(pictures / "a.png")
    label = int(model.predict([image]).classes[0])
    first = told["pictures"][0]
    assert first["target"] == first["predicted"] == toy.class_names[label]
    for name in methods:
        heat = maps[f"0001/{name}"]
        expected = make(name, Target(model, backbone))([image], torch.tensor([label]))[0]
        torch.testing.assert_close(heat, expected)
        assert first["maps"][name]["sum"] == pytest.approx(float(expected.sum()), rel=1e-4, abs=1e-5)
        row, column = np.unravel_index(expected.abs().argmax(), (16, 16))
        assert first["maps"][name]["peak"] == pytest.approx(
            [(column + 0.5) * 200 / 16, (row + 0.5) * 100 / 16], abs=0.1
        )
        with Image.open(out / "0001_a.png") as figure:
            assert np.asarray(figure.convert("L")).std() > 10


def test_another_class_and_all_methods(folder, pictures, tmp_path, toy, monkeypatch):
    cheap = {name: entry._replace(build=METHODS["random"].build) if entry.cost in ("N", "500", "3 m, m = 50") else entry
             for name, entry in METHODS.items()}  # fmt: skip
    monkeypatch.setattr("qpm_lib.explain.registry.METHODS", cheap)
    for wanted in (toy.class_names[2], "2"):
        out = tmp_path / f"maps {wanted}"
        arguments = [str(folder), str(pictures / "a.png"), "--target", wanted, "--methods", "all", "--out", str(out)]
        assert main(["explain", *arguments]) == 0
        [told] = json.loads((out / "maps.json").read_text())["pictures"]
        assert told["target"] == toy.class_names[2]
        assert list(told["maps"]) == [name for name in METHODS if name != "ranking"]


def test_figures_of_an_earlier_call_go(folder, pictures, tmp_path):
    out, first, second = tmp_path / "maps", pictures / "a.png", pictures / "b ü.png"
    out.mkdir()
    (out / "0009_mine.png").write_text("there before the first call")
    options = ["--methods", "random", "--out", str(out)]
    assert main(["explain", str(folder), str(first), str(second), *options]) == 0
    assert {path.name for path in out.glob("*.png")} == {"0009_mine.png", "0001_a.png", "0002_b ü.png"}
    assert main(["explain", str(folder), str(second), *options]) == 0
    assert {path.name for path in out.glob("*.png")} == {"0009_mine.png", "0001_b ü.png"}


def test_a_learned_ranking_after_its_training(folder, pictures, tmp_path, toy, backbone, capsys, monkeypatch):
    run = tmp_path / "run"
    shutil.copytree(folder, run / "model")
    command = ["explain", str(run), str(pictures / "a.png"), "--out", str(tmp_path / "maps"), "--methods"]
    assert main([*command, "ranking,intrinsic"]) == 1
    assert "explainers/model holds no explainer: run chapter 10" in capsys.readouterr().err
    target = Target(DinoQPM.load(run / "model").with_backbone(backbone), backbone)
    config = RankingConfig(steps=3, batch_size=8, fractions=1, second=0.5)
    method = train_ranking(target, toy, range(len(toy)), run / "explainers" / "model", config)
    assert main([*command, "ranking"]) == 0
    [told] = json.loads((tmp_path / "maps" / "maps.json").read_text())["pictures"]
    label = torch.tensor([toy.class_names.index(told["target"])])
    expected = method([Image.open(pictures / "a.png")], label)[0]
    torch.testing.assert_close(load_file(tmp_path / "maps" / "maps.safetensors")["0001/ranking"], expected)
    assert main([*command, "ranking", "--out", str(run / "explainers")]) == 1
    assert "belongs to the run" in capsys.readouterr().err
    monkeypatch.setattr("qpm_lib.explain.possible", lambda target: ("random",))
    assert main([*command, "all"]) == 0
    [told] = json.loads((tmp_path / "maps" / "maps.json").read_text())["pictures"]
    assert list(told["maps"]) == ["random", "ranking"]
    card = run / "explainers" / "model" / "model.json"
    card.write_text(card.read_text().replace('"target": "', '"target": "other '))
    assert main([*command, "all"]) == 0
    assert "left out ranking: the explainer in" in capsys.readouterr().err
    assert main([*command, "ranking"]) == 1


def test_a_concept_from_a_few_pictures(folder, pictures, tmp_path, toy, backbone):
    concept, out = tmp_path / "crowns", tmp_path / "maps"
    concept.mkdir()
    toy.image(1).save(concept / "1.png")
    toy.image(2).save(concept / "2.png")
    arguments = [str(folder), str(pictures / "a.png"), "--concept", str(concept), "--out", str(out)]
    assert main(["explain", *arguments]) == 0
    [told] = json.loads((out / "maps.json").read_text())["pictures"]
    assert told["target"] == "concept crowns"
    assert list(told["maps"]) == ["cdam", "relevance_propagation", "rollout"]
    target = concept_target(backbone, [toy.image(1), toy.image(2)])
    expected = make("cdam", target)([Image.open(pictures / "a.png")], torch.tensor([0]))[0]
    torch.testing.assert_close(load_file(out / "maps.safetensors")["0001/cdam"], expected, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--methods", "cam"], "unknown explanation method 'cam': choose from intrinsic"),
        (["--methods", ","], "names no method"),
        (["--target", "9"], "is no class of this model: "),
        (["--target", "-1"], "is no class of this model: "),
        (["--target", "002.Browm"], "did you mean 00"),
        (["--concept", "{here}/none"], "is no folder"),
        (["--concept", "{here}/empty"], "no pictures were found"),
        (["--concept", "{here}/damaged"], "broken.jpg"),
        (["--concept", "{here}/pictures", "--methods", "intrinsic"], "choose class_activation_map"),
        (["--batch-size", "0"], "must be at least 1"),
        (["--device", "cuda:9"], "not available"),
    ],
)
def test_errors_are_one_line(arguments, words, folder, pictures, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    (tmp_path / "damaged").mkdir()
    (pictures / "broken.jpg").rename(tmp_path / "damaged" / "broken.jpg")
    arguments = [text.format(here=tmp_path) for text in arguments]
    assert main(["explain", str(folder), str(pictures), "--out", str(tmp_path / "maps"), *arguments]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert words in error
    assert not (tmp_path / "maps").exists()


def test_a_place_that_is_a_file_and_pictures_that_are_none(folder, pictures, tmp_path, capsys):
    (tmp_path / "file").write_text("mine")
    assert main(["explain", str(folder), str(pictures), "--out", str(tmp_path / "file")]) == 1
    assert "name a folder" in capsys.readouterr().err
    assert (tmp_path / "file").read_text() == "mine"
    for place in (folder, folder / "maps", folder.parent / "explanations"):
        assert main(["explain", str(folder), str(pictures), "--out", str(place)]) == 1
        assert "belongs to the run" in capsys.readouterr().err
    assert not (folder.parent / "explanations").exists()
    assert main(["explain", str(folder), str(pictures / "broken.jpg"), "--out", str(tmp_path / "maps")]) == 1
    assert not (tmp_path / "maps" / "maps.json").exists()


def test_a_run_that_is_stopped_keeps_what_was_explained(folder, pictures, tmp_path, monkeypatch):
    from qpm_lib.explain.intrinsic import IntrinsicExplanation

    calls, maps = [], IntrinsicExplanation.maps

    def stopped(self, *given):
        calls.append(1)
        if len(calls) > 1:
            raise KeyboardInterrupt
        return maps(self, *given)

    monkeypatch.setattr(IntrinsicExplanation, "maps", stopped)
    arguments = [
        str(folder),
        str(pictures),
        "--methods",
        "intrinsic",
        "--batch-size",
        "1",
        "--out",
        str(tmp_path / "m"),
    ]
    assert main(["explain", *arguments]) == 130
    assert len(json.loads((tmp_path / "m" / "maps.json").read_text())["pictures"]) == 1


def test_the_methods_are_listed(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["explain", "--list-methods"])
    assert stopped.value.code == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["method", *METHODS]


def test_figures_do_not_go_among_the_pictures(folder, pictures, capsys):
    """A second call would explain them."""
    assert main(["explain", str(folder), str(pictures), "--methods", "random", "--out", str(pictures / "maps")]) == 1
    assert "lies in" in capsys.readouterr().err
    assert not (pictures / "maps").exists()
