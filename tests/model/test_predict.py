"""Pictures in, explained answers out: the library, the command line, and what lies in a model folder."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

import qpm_lib
from qpm_lib.backbones.frozen import load_backbone
from qpm_lib.cli import main
from qpm_lib.core.config import AdapterConfig
from qpm_lib.core.profiles import load_profile
from qpm_lib.model.answer_figure import heat_map_figure
from qpm_lib.model.card import describe_model
from qpm_lib.model.dense import DenseModel
from qpm_lib.model.outputs import feature_vectors
from qpm_lib.model.predict import Skipped, attach_backbone, find_pictures, predict_files
from qpm_lib.model.qpm import DinoQPM
from qpm_lib.selection.baselines.sldd import SparseSelection, select_sparse
from qpm_lib.selection.result import Selection


@pytest.fixture(scope="module")
def folder(tmp_path_factory, toy, toy_store, untrained, backbone):
    """A described model folder."""
    path, (model, selection) = tmp_path_factory.mktemp("run") / "model", untrained
    model.save(path, backbone=backbone.fingerprint)
    describe_model(
        path, model, toy_store, toy, load_profile("smoke"), selection=selection, figures={"test accuracy": 0.25}
    )
    return path


@pytest.fixture
def pictures(tmp_path, toy):
    below = tmp_path / "pictures"
    (below / "größer").mkdir(parents=True)
    for row in range(3):
        toy.image(row).resize((200, 100)).save(below / f"{row}.png")
    toy.image(3).save(below / "größer" / "3 ü.png")
    (below / "broken.jpg").write_bytes(b"\xff\xd8 no picture")
    (below / "notes.txt").write_text("not a picture")
    return below


def test_answers_add_up(folder, pictures, backbone):
    model = DinoQPM.load(folder)
    files = find_pictures([pictures])
    assert [f.name for f in files] == ["0.png", "1.png", "2.png", "broken.jpg", "3 ü.png"]
    results = list(predict_files(model, files, batch_size=2))
    assert isinstance(results[3], Skipped)
    assert results[3].file.endswith("broken.jpg")
    assert results[3].reason.startswith("damaged")
    weight = model.class_weight
    for path, result in zip(files, results, strict=True):
        if isinstance(result, Skipped):
            continue
        answer = result.answer
        logits = model.predict([Image.open(path)]).logits[0]
        first, second = logits.argsort(descending=True)[:2].tolist()
        assert answer.file == str(path)
        assert (answer.class_name, answer.runner_up) == (model.class_names[first], model.class_names[second])
        assert answer.score == pytest.approx(float(logits[first]), abs=1e-4)
        assert sum(u.contribution for u in answer.features) + answer.constant == pytest.approx(answer.score, abs=1e-4)
        assert all(u.contribution >= 0 for u in answer.features)
        assert sum(u.contribution for u in answer.deciding) + answer.constant_lead == pytest.approx(
            float(logits[first] - logits[second]), abs=1e-4
        )
        assert sorted(u.feature for u in answer.features) == np.flatnonzero(weight[first]).tolist()
        differ = {f for f in range(4) if weight[first, f] != weight[second, f]}
        assert {u.feature for u in answer.deciding} == differ
        for use in answer.deciding:
            assert use.of_class == (answer.class_name if weight[first, use.feature] else answer.runner_up)


def test_a_feature_is_where_its_map_peaks(folder, pictures):
    model = DinoQPM.load(folder)
    [result] = predict_files(model, [pictures / "0.png"])
    width, height = result.image.size
    for q, feature in enumerate(result.explanation.features[0].tolist()):
        use = next(u for u in result.answer.features if u.feature == feature)
        column, row = int(use.x / width * 16), int(use.y / height * 16)
        heat = result.explanation.maps[0, q].abs()
        assert heat[row, column] == heat.max()


def test_answers_do_not_depend_on_the_batch(folder, pictures):
    model = DinoQPM.load(folder)
    files = [f for f in find_pictures([pictures]) if f.name != "broken.jpg"]
    one, many = ([r.answer for r in predict_files(model, files, batch_size=size)] for size in (1, 4))
    for a, b in zip(one, many, strict=True):
        assert (a.class_name, a.runner_up) == (b.class_name, b.runner_up)
        assert a.score == pytest.approx(b.score, abs=1e-4)


def test_the_command(folder, pictures, tmp_path, capsys):
    json_file, maps = tmp_path / "out" / "answers.json", tmp_path / "maps"
    assert main(["predict", str(folder.parent), str(pictures), "--json", str(json_file), "--heatmaps", str(maps)]) == 0
    out, err = capsys.readouterr()
    assert "runner-up" in out
    assert "because  feature" in out
    assert "4 of 5 pictures answered, 1 skipped" in out
    assert "skipped" in err
    assert "broken.jpg" in err
    content = json.loads(json_file.read_text())
    assert len(content["pictures"]) == 4
    assert set(content["pictures"][0]["features"][0]) == {"feature", "name", "contribution", "x", "y"}
    assert set(content["pictures"][0]["deciding"][0]) == {"feature", "name", "of_class", "contribution"}
    assert content["skipped"][0]["file"].endswith("broken.jpg")
    drawn = sorted(p.name for p in maps.iterdir())
    assert drawn == ["0001_0.png", "0002_1.png", "0003_2.png", "0005_3 ü.png"]
    image = np.asarray(Image.open(maps / drawn[0]).convert("RGB")).astype(int)
    assert np.ptp(image, axis=2).max() > 80  # colour was drawn


def test_nothing_readable_is_a_failure(folder, pictures, tmp_path, capsys):
    assert main(["predict", str(folder), str(pictures / "broken.jpg"), str(tmp_path / "missing.png")]) == 1
    err = capsys.readouterr().err
    assert "broken.jpg" in err
    assert "missing.png: missing" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["predict", "{folder}", "{empty}"], "no pictures were found"),
        (["predict", "{empty}", "{pictures}"], "holds no model"),
        (["predict", "{folder}", "{pictures}", "--batch-size", "0"], "--batch-size"),
        (["predict", "{folder}", "{pictures}", "--weights", "nowhere.pth"], "does not exist"),
    ],
)
def test_wrong_use_is_one_line(arguments, message, folder, pictures, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    places = {"folder": folder, "pictures": pictures, "empty": tmp_path / "empty"}
    assert main([a.format(**places) for a in arguments]) == 1
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert message in err


def test_answers_never_overwrite_pictures_or_the_model(folder, pictures, tmp_path, capsys):
    copy = shutil.copytree(folder, tmp_path / "m")
    picture, manifest = (pictures / "0.png").read_bytes(), (copy / "model.json").read_bytes()
    (tmp_path / "afile").write_text("")
    for options, message in (
        (["--json", str(pictures / "0.png")], "is a picture or lies in the model folder"),
        (["--json", str(copy / "model.json")], "is a picture or lies in the model folder"),
        (["--json", str(tmp_path / "afile" / "a.json")], "cannot be made"),
        (["--heatmaps", str(tmp_path / "afile")], "is a file: name a folder"),
    ):
        assert main(["predict", str(copy), str(pictures / "1.png"), *options]) == 1
        out, err = capsys.readouterr()
        assert message in err
        assert err.count("\n") == 1
        assert not out
    assert ((pictures / "0.png").read_bytes(), (copy / "model.json").read_bytes()) == (picture, manifest)


def test_names_that_fit_no_feature_are_refused_and_nothing_is_written(folder, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "m")
    model, before = DinoQPM.load(copy), (copy / "model.json").read_bytes()
    wrong = ({9: "x"}, {-1: "x"}, {0: ""}, {0: "\udcff"}, "four", ["a", "b"])
    for names in wrong:
        with pytest.raises(ValueError, match="feature|names"):
            model.rename_features(names)
    assert (copy / "model.json").read_bytes() == before


def test_weights_that_are_not_finite_are_refused(folder, tmp_path):
    from safetensors.torch import load_file, save_file

    copy = shutil.copytree(folder, tmp_path / "m")
    state = load_file(copy / "model.safetensors")
    state["head.std"][1] = float("nan")
    save_file(state, copy / "model.safetensors")
    with pytest.raises(ValueError, match=r"not finite .head.std."):
        DinoQPM.load(copy)


def test_other_weights_are_refused(folder, tmp_path):
    from qpm_lib.backbones.toy_vit import build_toy_vit, save_weights

    save_weights(build_toy_vit(), tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match="trained with weights_sha256"):
        attach_backbone(DinoQPM.load(folder), weights=str(tmp_path / "other.safetensors"), device="cpu")


def test_the_folder_explains_itself(folder, toy):
    model = DinoQPM.load(folder)
    card = (folder / "README.md").read_text()
    assert "test accuracy | 25.0 %" in card
    assert json.loads((folder / "model.json").read_text())["backbone"]["weights_sha256"] in card
    assert json.loads((folder / "config.json").read_text())["profile"] == "smoke"
    assert Selection.load(folder / "selection.json").features.tolist() == [1, 3, 4, 6]
    for f, name in enumerate(model.feature_names):
        assert f"| {name} | " in card
        strip = Image.open(folder / "examples" / f"feature_{f:02d}.jpg")
        assert strip.size == (128 * 6, 128)
        assert np.asarray(strip).std() > 5


def test_names_of_features_reach_the_card(folder, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "m")
    before, model = (copy / "README.md").read_text().splitlines(), DinoQPM.load(copy)
    users = [line.split(" | ")[1] for line in before if "(examples/" in line]
    odd = {
        "a hooked beak": "a hooked beak",
        "<b>&": "&lt;b&gt;&amp;",
        "x | y\n": "x / y",
        "[`a`](b)": "\\[\\`a\\`\\](b)",
    }
    for names in (odd, {name: name for name in ("one", "two", "three", "four")}):
        model.rename_features(list(names))
        after, plain = (copy / "README.md").read_text().splitlines(), names.values()
        rows = [line for line in after if "(examples/" in line]
        assert rows == [
            f"| {n} | {u} | ![{n}](examples/feature_{f:02d}.jpg) |"
            for f, (n, u) in enumerate(zip(plain, users, strict=True))
        ]
        assert [line for line in after if line not in rows] == [line for line in before if "(examples/" not in line]


def test_proposed_names_are_marked_and_give_way_to_those_of_a_person(folder, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "m")
    model = DinoQPM.load(copy)
    model.rename_features({1: "a hooked beak"})
    model.propose_names({0: ("beak long", 0.712), 1: ("crown cap", 0.9)})
    names = ("feature 0 (proposed: beak long, 0.71)", "a hooked beak", "feature 2", "feature 3")
    assert model.feature_names == DinoQPM.load(copy).feature_names == names
    assert "| feature 0 (proposed: beak long, 0.71) | " in (copy / "README.md").read_text()
    model.propose_names({2: ("tail fan", 0.5)})  # measured again, otherwise
    assert model.feature_names == ("feature 0", "a hooked beak", "feature 2 (proposed: tail fan, 0.50)", "feature 3")


@pytest.mark.parametrize("target", [torch.tensor([0.5]), torch.tensor([[0]]), torch.tensor([True])])
def test_a_target_is_a_class_number(folder, backbone, toy, target):
    model = DinoQPM.load(folder).with_backbone(backbone)
    with pytest.raises(ValueError, match="class numbers, one for each"):
        DinoQPM.explain.__wrapped__(model, [toy.image(0)], target)


def test_what_is_known_of_the_places_stands_in_the_folder(folder, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "m")
    model = DinoQPM.load(copy)
    before = (copy / "README.md").read_text().splitlines()
    assert [line for line in before if "places" in line][0].endswith("| not measured (chapter 6 does) |")
    found = {"kept": 0.59, "kept_random": 0.07, "area": 0.09, "pictures": 3}
    model.note_locality(found)
    assert DinoQPM.load(copy).manifest.locality == model.manifest.locality == found
    after = (copy / "README.md").read_text().splitlines()
    changed = [line for line in after if line not in before]
    assert len(changed) == 1 and len(after) == len(before)
    assert "| 59 % of a feature's value is left" in changed[0] and "9 % of the picture; 7 % for" in changed[0]
    for wrong in ({**found, "kept": float("nan")}, {"kept": 0.5}):
        with pytest.raises(ValueError, match="locality"):
            model.note_locality(wrong)
    assert DinoQPM.load(copy).manifest.locality == found


def test_a_baseline_answers_too(toy, toy_store, backbone, tmp_path):
    """Real weights, a bias, and classes with different numbers of features."""
    torch.manual_seed(1)
    dense = DenseModel(192, 4, AdapterConfig(n_layers=1, n_features=12))
    rows = toy_store.rows(train=True)
    vectors = feature_vectors(dense, toy_store, rows)
    chosen = select_sparse(vectors, toy_store.labels[rows].numpy(), n_features=6, n_per_class=2)
    assert isinstance(chosen, SparseSelection)
    config = replace(load_profile("smoke", **{"selection.method": "sldd"}))
    chosen_vectors = torch.as_tensor(vectors[:, chosen.features])
    model = DinoQPM.from_dense(
        dense, chosen, mean=chosen_vectors.mean(0), std=chosen_vectors.std(0), class_names=toy.class_names
    ).eval()
    model.save(tmp_path / "m", backbone=backbone.fingerprint)
    describe_model(tmp_path / "m", model, toy_store, toy, config, selection=chosen)
    loaded = qpm_lib.DinoQPM.load(tmp_path / "m")
    toy.image(0).save(tmp_path / "a.png")
    [result] = predict_files(loaded, [tmp_path / "a.png"])
    answer = result.answer
    assert sum(u.contribution for u in answer.features) + answer.constant == pytest.approx(answer.score, abs=1e-3)
    assert "SLDD for 4 classes" in (tmp_path / "m" / "README.md").read_text()


def test_answers_are_kept_when_something_breaks_later(folder, pictures, tmp_path, monkeypatch, capsys):
    def full(*_):
        raise OSError("No space left on device")

    monkeypatch.setattr("qpm_lib.model.save_heat_map", full)
    assert (
        main(
            [
                "predict",
                str(folder),
                str(pictures),
                "--json",
                str(tmp_path / "a.json"),
                "--heatmaps",
                str(tmp_path / "maps"),
            ]
        )
        == 1
    )
    assert "No space left" in capsys.readouterr().err
    assert len(json.loads((tmp_path / "a.json").read_text())["pictures"]) == 1
    assert main(["predict", str(folder), str(pictures), "--json", str(tmp_path)]) == 1
    assert "is a folder" in capsys.readouterr().err


def test_a_class_without_features_is_drawn_too(folder, pictures):
    model = DinoQPM.load(folder)
    model.head.weight.zero_()
    model.head.bias[2] = 50.0
    [result] = predict_files(model, [pictures / "0.png"])
    assert result.answer.features == ()
    heat_map_figure(result, model).canvas.draw()


def test_the_square_is_cut_before_it_is_resized():
    cropping = load_backbone("toy", aspect="crop")
    wide = Image.new("RGB", (240, 60), "black")
    wide.paste((255, 255, 255), (120, 0, 130, 60))
    seen = np.asarray(cropping.square(wide, 128))[..., 0]
    assert abs(np.nonzero(seen[64] > 128)[0].mean() - (125 - 90) / 60 * 128) < 3


@pytest.mark.parametrize(
    "change",
    [
        {"class_names": "abcd"}, {"class_names": [1, 2, 3, 4]}, {"feature_names": [None] * 4},
        {"adapter": {"n_layers": 1, "hidden": 8, "n_features": 4, "pooling": "foo"}}, {"backbone": 5},
    ],
)  # fmt: skip
def test_model_cards_edited_by_hand(change, folder, tmp_path):
    shutil.copytree(folder, tmp_path / "m")
    card = json.loads((folder / "model.json").read_text())
    (tmp_path / "m" / "model.json").write_text(json.dumps({**card, **change}), encoding="utf-8-sig")
    with pytest.raises(ValueError, match="does not describe a QPM"):
        DinoQPM.load(tmp_path / "m")
