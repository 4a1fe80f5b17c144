import json

import numpy as np
import pytest
import torch

import qpm_lib
from qpm_lib.backbones.frozen import load_backbone
from qpm_lib.core.config import AdapterConfig
from qpm_lib.core.devices import mixed_precision
from qpm_lib.model.adapter import Adapter, Output
from qpm_lib.model.dense import DenseModel
from qpm_lib.model.head import FixedHead
from qpm_lib.model.qpm import DinoQPM
from qpm_lib.selection.result import Selection


def tokens(batch=3, patches=16, width=6, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, patches, width, generator=generator), torch.randn(batch, width, generator=generator)


def dense(pooling="avg", n_features=7, n_classes=3):
    torch.manual_seed(0)
    return DenseModel(6, n_classes, AdapterConfig(n_layers=2, hidden=8, n_features=n_features, pooling=pooling)).eval()


def a_selection():
    assignment = np.array([[1, 1, 0, 0], [0, 1, 1, 0], [1, 0, 0, 1]], bool)
    return Selection(np.array([1, 3, 4, 6]), assignment, 1.0, 1.0, 0.0, 0.0, "optimal")


def qpm(pooling="avg"):
    statistics = {"mean": torch.tensor([0.1, 0.2, 0.3, 0.4]), "std": torch.tensor([1.0, 2.0, 0.5, 1.5])}
    return DinoQPM.from_dense(dense(pooling), a_selection(), **statistics, class_names=list("xyz")).eval()


def test_every_patch_is_treated_alike():
    model = dense()
    patches, cls = tokens()
    shuffled = torch.randperm(16, generator=torch.Generator().manual_seed(1))
    one, two = model(patches, cls), model(patches[:, shuffled], cls)
    torch.testing.assert_close(one.maps.flatten(2)[..., shuffled], two.maps.flatten(2))
    torch.testing.assert_close(one.logits, two.logits)
    assert (one.maps >= 0).all()


@pytest.mark.parametrize("pooling", ["avg", "max", "cls", "cls_avg"])
def test_pooling(pooling):
    model, (patches, cls) = dense(pooling), tokens()
    out = model(patches, cls)
    on_cls = model.adapter(cls[:, None])[:, 0]
    average, largest = out.maps.mean((2, 3)), out.maps.amax((2, 3))
    expected = {"avg": average, "max": largest, "cls": on_cls, "cls_avg": (average + on_cls) / 2}[pooling]
    torch.testing.assert_close(out.vector, expected)
    torch.testing.assert_close(out.logits, out.vector @ model.class_weight.T + model.head.bias)


def test_map_positions_are_patch_positions():
    model, (patches, cls) = dense(), tokens()
    out = model(patches, cls)
    torch.testing.assert_close(out.maps[1, :, 2, 3], model.adapter(patches)[1, 2 * 4 + 3])


def test_explanations_add_up_to_the_score_in_bf16_too():
    """As on a GPU: what is multiplied in bf16 is added up in float32."""
    model, (patches, cls) = qpm(), tokens(batch=8, patches=256)
    with torch.no_grad(), mixed_precision(torch.device("cpu"), on_cpu=True):
        out = model(patches, cls)
    assert out.maps.dtype == torch.bfloat16
    best = out.logits.argmax(1)
    explanation = model.explain_tokens(out, best)
    scores = out.logits.gather(1, best[:, None])[:, 0]
    for parts in (explanation.maps.sum((1, 2, 3)), explanation.contributions.sum(1)):
        torch.testing.assert_close(parts + explanation.constant, scores, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("n_layers", [1, 3])
def test_keeping_features_keeps_their_values(n_layers):
    torch.manual_seed(0)
    adapter = Adapter(6, AdapterConfig(n_layers=n_layers, hidden=8, n_features=7))
    for _ in range(3):
        adapter(torch.randn(4, 16, 6))
    adapter.eval()
    x = torch.randn(2, 16, 6)
    torch.testing.assert_close(adapter.keep(torch.tensor([5, 0, 2]))(x), adapter(x)[..., [5, 0, 2]])


def test_dense_model_survives_a_round_trip(tmp_path):
    model = dense()
    model.save(tmp_path / "m")
    loaded = DenseModel.load(tmp_path / "m")
    assert torch.equal(loaded(*tokens()).logits, model(*tokens()).logits)
    assert not loaded.training
    with pytest.raises(ValueError, match="run chapter 02"):
        DenseModel.load(tmp_path / "other")


def test_binary_head_by_hand():
    mean, std = torch.tensor([1.0, 2.0, 3.0]), torch.tensor([2.0, 1.0, 0.0])
    head = FixedHead(torch.tensor([[1.0, 0.0, 1.0]]), torch.zeros(1), mean=mean, std=std)
    assert head(torch.tensor([[3.0, 9.0, 3.0 + 5e-6]]))[0, 0].item() == pytest.approx(1.0 + 5.0, rel=0.2)


def test_scores_are_sums_of_the_features_of_the_class():
    model, (patches, cls) = qpm(), tokens()
    out = model(patches, cls)
    normalised = (out.vector - model.head.mean) / model.head.std
    torch.testing.assert_close(out.logits, normalised @ torch.tensor(a_selection().assignment).float().T)
    torch.testing.assert_close(out.maps, dense()(patches, cls).maps[:, a_selection().features])


@pytest.mark.parametrize("pooling", ["avg", "max"])
def test_the_explanation_sums_to_the_logit(pooling):
    model, (patches, cls) = qpm(pooling), tokens()
    out = model(patches, cls)
    for c in range(3):
        target = torch.full((3,), c)
        explanation = model.explain_tokens(out, target)
        torch.testing.assert_close(explanation.contributions.sum(1) + explanation.constant, out.logits[:, c])
        torch.testing.assert_close(explanation.maps.sum((2, 3)), explanation.contributions)
        assert (explanation.contributions >= 0).all()
        constant = -(model.head.weight[c] * model.head.mean / model.head.std).sum()
        torch.testing.assert_close(explanation.constant, constant.expand(3))
        torch.testing.assert_close(model.local_map(out, target).sum((1, 2)) + constant, out.logits[:, c])
        assert explanation.features.tolist() == [np.flatnonzero(a_selection().assignment[c]).tolist()] * 3


def test_pooling_from_cls_has_no_local_explanation():
    model = qpm("cls")
    with pytest.raises(ValueError, match="adapter.pooling.*avg or max"):
        model.explain_tokens(model(*tokens()), torch.zeros(3, dtype=torch.long))


def test_a_selection_that_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="3 classes, features up to 6.*3 classes, 5 features"):
        DinoQPM.from_dense(
            dense(n_features=5), a_selection(), mean=torch.zeros(4), std=torch.ones(4), class_names=list("xyz")
        )


def test_model_folder_round_trip(tmp_path):
    model = qpm()
    model.save(tmp_path / "m", backbone={"backbone": "toy"})
    loaded = DinoQPM.load(tmp_path / "m")
    assert torch.equal(loaded(*tokens()).logits, model(*tokens()).logits)
    assert loaded.class_names == ("x", "y", "z")
    assert loaded.features.tolist() == [1, 3, 4, 6]
    assert loaded.n_per_class == 2
    assert {p.name for p in (tmp_path / "m").iterdir()} == {"model.safetensors", "model.json"}


def test_a_model_that_knows_no_backbone_says_so(tmp_path, toy):
    with pytest.raises(ValueError, match="no backbone"):
        qpm().predict([toy.image(0)])
    qpm().save(tmp_path / "m", backbone={"backbone": "toy"})
    with pytest.raises(ValueError, match="no backbone"):
        DinoQPM.load(tmp_path / "m").predict([toy.image(0)])


def test_damaged_model_folders(tmp_path):
    with pytest.raises(ValueError, match="holds no model"):
        DinoQPM.load(tmp_path)
    qpm().save(tmp_path / "m", backbone={})
    weights = tmp_path / "m" / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:200])
    with pytest.raises(ValueError, match=r"model\.safetensors is damaged"):
        DinoQPM.load(tmp_path / "m")
    weights.unlink()
    with pytest.raises(ValueError, match=r"model\.safetensors is missing"):
        DinoQPM.load(tmp_path / "m")
    weights.write_bytes(whole)
    card = json.loads((tmp_path / "m" / "model.json").read_text())
    (tmp_path / "m" / "model.json").write_text(json.dumps({**card, "n_per_class": 3}))
    with pytest.raises(ValueError, match="contradicts itself"):
        DinoQPM.load(tmp_path / "m")
    for wrong in (
        {**card, "n_features": "four"},
        {**card, "adapter": {"depth": 3}},
        {"kind": "dense"},
        [1, 2],
        {**card, "backbone": 3},
    ):
        (tmp_path / "m" / "model.json").write_text(json.dumps(wrong))
        with pytest.raises(ValueError, match="does not describe a QPM"):
            DinoQPM.load(tmp_path / "m")
    (tmp_path / "m" / "model.json").write_text(json.dumps({**card, "n_features": 9, "feature_names": ["f"] * 9}))
    with pytest.raises(ValueError, match="does not fit"):
        DinoQPM.load(tmp_path / "m")


def test_pictures_in_explanation_out(toy, toy_store, backbone, tmp_path):
    config = AdapterConfig(n_layers=1, n_features=7)
    torch.manual_seed(0)
    adapter = DenseModel(192, 4, config)
    assignment = np.array([[1, 1, 0, 0], [0, 1, 1, 0], [1, 0, 0, 1], [0, 0, 1, 1]], bool)
    selection = Selection(np.array([1, 3, 4, 6]), assignment, 1.0, 1.0, 0.0, 0.0, "optimal")
    model = DinoQPM.from_dense(adapter, selection, mean=torch.zeros(4), std=torch.ones(4), class_names=toy.class_names)
    model.save(tmp_path, backbone=backbone.fingerprint)
    model = DinoQPM.load(tmp_path)
    torch.testing.assert_close(
        model.predict([toy.image(0)]).logits,
        DinoQPM.load(tmp_path).with_backbone(backbone).predict([toy.image(0)]).logits,
    )
    with pytest.raises(ValueError, match="trained with aspect 'squash', not 'crop'"):
        model.with_backbone(load_backbone("toy", aspect="crop"))
    cut = load_backbone("toy", depth=2)
    with pytest.raises(ValueError, match="trained with weights_sha256"):
        model.with_backbone(cut)
    untied = DinoQPM.from_dense(adapter, selection, mean=torch.zeros(4), std=torch.ones(4), class_names=toy.class_names)
    untied.save(tmp_path / "cut", backbone=cut.fingerprint)
    shallow = DinoQPM.load(tmp_path / "cut")
    torch.testing.assert_close(
        shallow.predict([toy.image(0)]).logits, shallow(*cut.tokens(cut.preprocess([toy.image(0)]))).logits
    )
    model.with_backbone(backbone)
    with pytest.raises(ValueError, match="no pictures"):
        model.predict([])
    with pytest.raises(ValueError, match="list of PIL images"):
        DinoQPM.output.__wrapped__(model, toy.image(0))
    for target in ([4], [-1], [0, 1]):
        with pytest.raises(ValueError, match="must hold one class from 0 to 3 for each of 1 pictures"):
            model.explain([toy.image(0)], torch.tensor(target))
    prediction, explanation = model.predict([toy.image(0), toy.image(9).convert("L")]), model.explain([toy.image(0)])
    assert prediction.logits.shape == (2, 4)
    total = explanation.contributions.sum(1) + explanation.constant
    torch.testing.assert_close(total, prediction.logits[:1].amax(1), rtol=1e-3, atol=1e-3)
    from_store = model(*toy_store.fetch(torch.tensor([0]))[:2])
    torch.testing.assert_close(prediction.logits[:1], from_store.logits, rtol=0.02, atol=0.02)


def test_output_names_stay_put():
    assert Output._fields == ("maps", "vector", "logits")
    assert {
        "DinoQPM",
        "FeatureStore",
        "load_backbone",
        "load_dataset",
        "load_profile",
        "train_dense",
        "fine_tune",
    } <= set(qpm_lib.__all__)
