"""What a model folder promises: which pictures calibrate, what is kept, and what `qpm predict --confidence` says."""

import json

import numpy as np
import pytest
import torch

from qpm_lib.cli import main
from qpm_lib.conformal import path_scores
from qpm_lib.model.calibrated import (
    calibrate,
    calibration_rows,
    load_calibration,
    save_calibration,
    strengths,
    supported_rule,
)
from qpm_lib.model.qpm import DinoQPM


@pytest.fixture
def folder(tmp_path, untrained, backbone):
    path, (model, _) = tmp_path / "model", untrained
    model.save(path, backbone=backbone.fingerprint)
    return path


@pytest.fixture
def calibrated(folder, toy_store):
    model, rows = DinoQPM.load(folder), toy_store.rows(train=True)
    save_calibration(folder, calibrate(model, toy_store, rows), [f"{row}.png" for row in rows])
    return folder


def test_pictures_are_dealt_out_once_and_by_class():
    labels = torch.tensor([0] * 30 + [1] * 6 + [2] + [3] * 2)
    held_out = torch.arange(1, 39)
    first, rest = calibration_rows(labels, held_out)
    assert sorted([*first.tolist(), *rest.tolist()]) == held_out.tolist()
    assert np.bincount(labels[first], minlength=4).tolist() == [10, 3, 0, 1]
    assert torch.equal(first, calibration_rows(labels, held_out)[0])
    assert not torch.equal(first, calibration_rows(labels, held_out, seed=1)[0])
    with pytest.raises(ValueError, match="no class has two test pictures"):
        calibration_rows(labels, torch.tensor([0, 30, 36]))


def test_what_is_kept_gives_the_same_sets(calibrated, toy_store):
    model, rows = DinoQPM.load(calibrated), toy_store.rows(train=True)
    before, after = calibrate(model, toy_store, rows), load_calibration(calibrated, model)
    vector, logits = strengths(model, toy_store, toy_store.rows(train=False))
    assert torch.allclose(vector @ model.class_weight.T + model.head.constants, logits, atol=1e-3)
    for alpha in (0.3, 0.2, 0.1):
        assert before.rule(alpha) == after.rule(alpha)
        assert torch.equal(before.predict(vector, logits, alpha), after.predict(vector, logits, alpha))
    card = json.loads((calibrated / "calibration.json").read_text())
    assert (len(card["pictures"]), card["split"]) == (len(rows), "strict")
    assert card["confidences"]["0.9"]["count"] == len(rows) // 2 + len(rows) % 2


def test_the_promise_belongs_to_one_model(calibrated, untrained, backbone):
    model = DinoQPM.load(calibrated)
    kept = {name: (calibrated / name).read_bytes() for name in ("calibration.json", "calibration.safetensors")}
    with torch.no_grad():
        model.adapter.layers[0].bias.add_(1.0)
    model.save(calibrated, backbone=backbone.fingerprint)
    with pytest.raises(ValueError, match=r"is not calibrated.*`qpm run` without --to"):
        load_calibration(calibrated, model)
    for name, content in kept.items():
        (calibrated / name).write_bytes(content)
    with pytest.raises(ValueError, match="was calibrated for another model"):
        load_calibration(calibrated, model)
    older = {k: v for k, v in json.loads(kept["calibration.json"]).items() if k != "score"}
    (calibrated / "calibration.json").write_text(json.dumps(older))
    with pytest.raises(ValueError, match="by another version of this program: run chapter 13 again"):
        load_calibration(calibrated, model)
    (calibrated / "calibration.safetensors").write_bytes(b"broken")
    with pytest.raises(ValueError, match="is damaged"):
        load_calibration(calibrated, model)


def test_a_confidence_must_be_supported(calibrated):
    sets = load_calibration(calibrated, DinoQPM.load(calibrated))
    count = sets.rule(0.5).count
    assert supported_rule(sets, count / (count + 1)).count == count
    with pytest.raises(ValueError, match=rf"beyond what {count} calibration pictures support: at most 0\.9"):
        supported_rule(sets, 0.9999)
    with pytest.raises(ValueError, match="must lie between 0 and 1"):
        supported_rule(sets, 90)


def test_the_command_names_what_is_possible(calibrated, toy, tmp_path, capsys):
    for row in range(2):
        toy.image(row).save(tmp_path / f"{row}.png")
    command = ["predict", str(calibrated), str(tmp_path / "0.png"), str(tmp_path / "1.png")]
    answers = tmp_path / "answers.json"
    assert main([*command, "--confidence", "0.8", "--json", str(answers)]) == 0
    printed = capsys.readouterr().out
    assert printed.count("  possible  ") == 2
    model = DinoQPM.load(calibrated)
    sets = load_calibration(calibrated, model)
    rule = sets.rule(0.2)
    for row, answer in enumerate(json.loads(answers.read_text())["pictures"]):
        out = model.output([toy.image(row)])
        vector = model.head.strength(out.vector.float()).detach()
        inside = sets.predict(vector, out.logits, 0.2)[0]
        names = answer["possible"]["class_names"]
        assert sorted(names) == sorted(model.class_names[c] for c in inside.nonzero()[:, 0].tolist())
        assert answer["possible"]["level"] == rule.level
        tree = sets.tree(vector, out.logits)
        assert answer["possible"]["path"] == [model.feature_names[f] for f in tree.path[0].tolist() if f >= 0]
        order = [float(path_scores(tree, rule.level)[0, model.class_names.index(name)]) for name in names]
        assert order[1:] == sorted(order[1:])
    assert main(command) == 0
    assert "possible" not in capsys.readouterr().out


@pytest.mark.parametrize(("confidence", "words"), [("0.99999", "beyond what"), ("1.5", "must lie between 0 and 1")])
def test_the_command_refuses_what_cannot_be_promised(calibrated, toy, tmp_path, capsys, confidence, words):
    toy.image(0).save(tmp_path / "0.png")
    assert main(["predict", str(calibrated), str(tmp_path / "0.png"), "--confidence", confidence]) == 1
    error = capsys.readouterr().err
    assert words in error
    assert len(error.strip().splitlines()) == 1


def test_a_model_that_is_not_calibrated_says_how(folder, toy, tmp_path, capsys):
    toy.image(0).save(tmp_path / "0.png")
    assert main(["predict", str(folder), str(tmp_path / "0.png"), "--confidence", "0.9"]) == 1
    error = capsys.readouterr().err
    assert "`qpm run` without --to, or with --to 13, does it" in error
    assert len(error.strip().splitlines()) == 1
