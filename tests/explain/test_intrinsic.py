import copy

import pytest
import torch
from conftest import N_CLASSES

from qpm_lib.explain.intrinsic import ClassActivationMap, IntrinsicExplanation, compare_classes
from qpm_lib.explain.target import Target
from qpm_lib.model.outputs import correct_rows, most_activating, outputs_of
from qpm_lib.model.stages import train_linear_probe


def test_the_planted_patches_are_the_peaks(planted, trained):
    """Class c is planted at patches c and 8 + c: its explanation must peak there, for every correct test picture."""
    store, _ = planted
    model = trained[2]
    rows = store.rows(train=False)
    out = outputs_of(model, store, rows)
    labels = store.labels[rows]
    local = model.local_map(out, labels).flatten(1)
    peaks = local.argmax(1)
    assert ((peaks == labels) | (peaks == 8 + labels)).all()
    planted_mass = local.gather(1, torch.stack([labels, 8 + labels], 1)).sum(1) / local.sum(1)
    assert planted_mass.min() > 0.6


def test_the_intrinsic_map_is_that_of_the_model_and_of_no_other(toy, target, toy_store, backbone):
    images, targets = [toy.image(0), toy.image(20)], torch.tensor([1, 3])
    model = target.model
    out = model(*backbone.tokens(backbone.preprocess(images)))
    found = IntrinsicExplanation(target)(images, targets)
    torch.testing.assert_close(found, model.local_map(out, targets))
    totals = found.sum((1, 2)) + model.head.constants[targets]
    torch.testing.assert_close(totals, out.logits[[0, 1], targets], rtol=1e-4, atol=1e-4)
    with pytest.raises(ValueError, match="not of LinearProbe: choose class_activation_map"):
        IntrinsicExplanation(Target(train_linear_probe(toy_store), backbone))


def test_the_class_activation_map_of_a_probe_is_its_weights_on_patches(toy, toy_store, backbone):
    probe, images = train_linear_probe(toy_store), [toy.image(3)]
    found = ClassActivationMap(Target(probe, backbone))(images, torch.tensor([2]))
    patches = backbone.tokens(backbone.preprocess(images)).patches
    torch.testing.assert_close(found.flatten(1), patches @ probe.class_weight[2])


def test_comparing_classes():
    weight = torch.tensor([[1.0, 1, 0, 0], [0, 1, 1, 0]])
    groups = compare_classes(weight, 0, 1)
    assert [g.tolist() for g in groups] == [[0], [1], [2]]
    assert [len(g) for g in compare_classes(weight, 0, 0)] == [0, 2, 0]


def test_examples_are_correct_predictions_in_descending_order(planted, trained):
    store, _ = planted
    model = trained[2]
    examples = most_activating(model, store, count=3)
    assert examples.shape == (6, 3)
    out = outputs_of(model, store, torch.arange(len(store)))
    for f, rows in enumerate(examples):
        values = out.vector[torch.as_tensor(rows), f]
        assert (values[:-1] >= values[1:]).all()
        assert (out.logits[torch.as_tensor(rows)].argmax(1) == store.labels[torch.as_tensor(rows)]).all()
        assert not store.is_train[torch.as_tensor(rows)].any()


def test_a_model_that_is_always_wrong_shows_any_pictures_and_says_so(planted, trained, caplog):
    store, _ = planted
    wrong = copy.copy(store)
    wrong.labels = (store.labels + 1) % N_CLASSES
    assert correct_rows(trained[2], store).tolist() == store.rows(train=False).tolist()
    assert most_activating(trained[2], wrong, count=2).shape == (6, 2)
    assert "no picture is predicted correctly" in caplog.text
