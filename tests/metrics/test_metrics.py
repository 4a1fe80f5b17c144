import copy
from dataclasses import replace
from statistics import NormalDist

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from qpm_lib import metrics
from qpm_lib.metrics.maps import plausibility_per_image, sid_per_image


def spots(places, height=30.0, grid=4):
    maps = torch.zeros(1, len(places), grid, grid)
    for f, p in enumerate(places):
        maps[0, f, p // grid, p % grid] = height
    return maps


def test_accuracy_and_confusion():
    logits = torch.tensor([[2.0, 1.0], [0.0, 1.0], [3.0, 3.0]])
    assert metrics.accuracy(logits, torch.tensor([0, 0, 0])) == pytest.approx(2 / 3)
    assert metrics.confusion(logits.argmax(1), torch.tensor([0, 0, 1]), 2).tolist() == [[1, 1], [1, 0]]
    with pytest.raises(ValueError, match="at least one"):
        metrics.accuracy(torch.zeros(0, 2), torch.zeros(0, dtype=torch.long))


def test_sid_is_one_for_different_places_and_one_over_k_for_the_same():
    weight, predicted = torch.ones(1, 4), torch.tensor([0])
    assert metrics.sid(spots([0, 5, 10, 15]), weight, predicted, k=4) == pytest.approx(1.0, abs=1e-2)
    assert metrics.sid(spots([6, 6, 6, 6]), weight, predicted, k=4) == pytest.approx(0.25, abs=1e-2)
    assert metrics.sid(torch.zeros(1, 4, 4, 4), weight, predicted, k=4) == pytest.approx(0.25)


def test_sid_takes_the_strongest_by_absolute_weight():
    maps, predicted = spots([0, 0, 9]), torch.tensor([0])
    assert metrics.sid(maps, torch.tensor([[1.0, 0.1, -2.0]]), predicted, k=2) > 0.95
    assert metrics.sid(maps, torch.tensor([[1.0, 2.0, -0.1]]), predicted, k=2) < 0.55


def test_sid_leaves_out_classes_with_too_few_features():
    maps = torch.cat([spots([0, 5]), spots([3, 3])])
    weight = torch.tensor([[1.0, 1.0], [1.0, 0.0]])
    scores = sid_per_image(maps, weight, torch.tensor([0, 1]), k=2)
    assert scores.isnan().tolist() == [False, True]
    assert metrics.sid(maps, weight, torch.tensor([0, 1]), k=2) == pytest.approx(scores[0].item())
    assert sid_per_image(maps, weight, torch.tensor([0, 1]), k=3).isnan().all()


def test_sid_by_hand():
    maps = torch.tensor([[[[1.0, 3.0], [2.0, 2.0]], [[2.0, 2.0], [2.0, 2.0]]]])
    first = np.exp([1 / 2, 3 / 2, 1, 1]) / np.exp([1 / 2, 3 / 2, 1, 1]).sum()
    expected = np.maximum(first, 0.25).sum() / 2
    assert metrics.sid(maps, torch.ones(1, 2), torch.tensor([0]), k=2) == pytest.approx(expected, rel=1e-6)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_measures_of_maps_do_not_depend_on_order_or_class_names(seed):
    generator = torch.Generator().manual_seed(seed)
    maps, weight = torch.rand(5, 6, 4, 4, generator=generator), torch.rand(3, 6, generator=generator)
    predicted, masks = torch.randint(3, (5,), generator=generator), torch.rand(5, 9, 7, generator=generator) > 0.6
    images, features, classes = (torch.randperm(n, generator=generator) for n in (5, 6, 3))
    renamed = torch.empty(3, dtype=torch.long)
    renamed[classes] = torch.arange(3)
    changed = maps[images][:, features], weight[classes][:, features], renamed[predicted[images]]
    assert metrics.sid(maps, weight, predicted, k=3) == pytest.approx(metrics.sid(*changed, k=3), rel=1e-5)
    assert metrics.plausibility(maps, weight, predicted, masks) == pytest.approx(
        metrics.plausibility(*changed, masks[images]), rel=1e-5
    )
    one_by_one = [metrics.sid(maps[i : i + 1], weight, predicted[i : i + 1], k=3) for i in range(5)]
    assert metrics.sid(maps, weight, predicted, k=3) == pytest.approx(np.mean(one_by_one), rel=1e-5)
    assert 1 / 3 - 1e-6 <= metrics.sid(maps, weight, predicted, k=3) <= 1 + 1e-6


def test_plausibility_by_hand():
    maps = torch.zeros(1, 2, 4, 4)
    maps[0, 0, 0, 0], maps[0, 1, 3, 3] = 3.0, 1.0
    masks = torch.zeros(1, 8, 8, dtype=torch.bool)
    masks[0, 0, 1] = True
    args = maps, torch.tensor([[1.0, 1.0]]), torch.tensor([0]), masks
    assert metrics.plausibility(*args, dilate=False) == pytest.approx(0.75)
    assert metrics.plausibility(*args) == pytest.approx(0.75)
    assert metrics.pointing(*args) == 1.0
    _, chance = plausibility_per_image(*args, dilate=False)
    assert chance.item() == pytest.approx(1 / 16)
    _, dilated = plausibility_per_image(*args)
    assert dilated.item() == pytest.approx(4 / 16)


def test_plausibility_uses_the_predicted_class_and_subtracts_the_minimum():
    maps = torch.full((1, 2, 2, 2), 5.0)
    maps[0, 0, 0, 0], maps[0, 1, 1, 1] = 7.0, 9.0
    masks = torch.tensor([[[True, False], [False, False]]])
    weight = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    assert metrics.plausibility(maps, weight, torch.tensor([0]), masks, dilate=False) == pytest.approx(1.0)
    assert metrics.plausibility(maps, weight, torch.tensor([1]), masks, dilate=False) == pytest.approx(0.0)


def test_a_constant_map_is_worth_chance_not_zero():
    masks = torch.zeros(1, 4, 4, dtype=torch.bool)
    masks[0, :2] = True
    args = torch.ones(1, 1, 4, 4), torch.ones(1, 1), torch.tensor([0]), masks
    assert metrics.plausibility(*args, dilate=False) == pytest.approx(0.5)


def test_any_foreground_makes_a_patch_count():
    masks = torch.zeros(1, 128, 128, dtype=torch.bool)
    masks[0, 17, 40] = True
    cells = metrics.grid_masks(masks, 16, dilate=False)[0]
    assert torch.nonzero(cells).tolist() == [[2, 5]]
    assert metrics.grid_masks(masks, 16)[0].sum() == 9


def test_class_independence_by_hand():
    features = np.array([[1.0, 2.0], [1.0, 0.0], [3.0, 0.0], [1.0, 2.0]])
    labels = np.array([0, 0, 1, 1])
    assert metrics.class_independence(features, labels) == pytest.approx(1 - (1.0 + 0.5) / 2)
    assert metrics.class_independence(features + 100, labels) == pytest.approx(0.25)
    assert np.isnan(metrics.class_independence(np.ones((4, 2)), labels))


def test_contrastiveness_of_on_off_and_of_one_lump():
    rng = np.random.default_rng(0)
    on_off = np.r_[rng.normal(0, 0.1, 500), rng.normal(5, 0.1, 300)][:, None]
    lump = rng.normal(0, 1, 800)[:, None]
    assert metrics.contrastiveness(on_off) > 0.999
    assert metrics.contrastiveness(lump) < 0.8
    assert metrics.contrastiveness(on_off * 1e-4) == pytest.approx(metrics.contrastiveness(on_off), abs=1e-6)
    assert metrics.contrastiveness(np.c_[on_off, np.ones(800)]) == pytest.approx(
        metrics.contrastiveness(on_off) / 2, abs=1e-6
    )
    assert metrics.contrastiveness(lump) == metrics.contrastiveness(lump)


def test_contrastiveness_is_one_minus_the_overlap():
    """Two well separated, equally large groups: the mixture finds them, and the overlap is that of their normal
    densities.
    """
    rng = np.random.default_rng(1)
    values = np.r_[rng.normal(0, 1, 4000), rng.normal(5, 1, 4000)]
    expected = 1 - NormalDist(0, 1).overlap(NormalDist(5, 1))
    assert metrics.contrastiveness(values[:, None]) == pytest.approx(expected, abs=0.01)


def test_correlation_by_hand():
    features = np.array([[1.0, 1.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 2.0]])
    assert metrics.correlation(features) == pytest.approx((np.sqrt(0.5) + np.sqrt(0.5) + 0.0) / 3)


def test_structural_grounding_by_hand():
    weight = np.array([[1, 1, 0, 0], [1, 0, 1, 0], [0, 0, 1, 1]], float)
    attributes = np.array([[1, 0], [1, 0], [0, 1]], float)
    assert metrics.structural_grounding(weight, attributes, top=2) == pytest.approx(0.5)
    assert metrics.structural_grounding(attributes, attributes, top=2) == pytest.approx(1.0)
    with pytest.raises(ValueError, match="row 1 of the class weights"):
        metrics.structural_grounding(np.array([[1.0], [0.0], [1.0]]), attributes)


def test_attribute_alignment_by_hand():
    features = np.array([[4.0], [4.0], [0.0], [2.0]])
    attributes = np.array([[1, 1, 1], [1, 0, 1], [0, 0, 1], [0, 1, 1]], bool)
    assert metrics.attribute_alignment(features, attributes) == pytest.approx((4.0 - 1.0) / 2.5)
    assert np.isnan(metrics.attribute_alignment(features, attributes[:, 2:]))


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_measures_of_features_do_not_depend_on_order_or_class_names(seed):
    rng = np.random.default_rng(seed)
    features, labels = rng.gamma(1.0, size=(60, 4)), np.arange(60) % 3
    attributes, weight, kinds = rng.random((60, 5)) < 0.5, rng.random((3, 4)) + 0.01, rng.random((3, 6))
    images, order, classes = rng.permutation(60), rng.permutation(4), rng.permutation(3)
    changed, renamed = features[images][:, order], np.argsort(classes)[labels[images]]
    assert metrics.class_independence(changed, renamed) == pytest.approx(metrics.class_independence(features, labels))
    assert metrics.correlation(changed) == pytest.approx(metrics.correlation(features))
    assert metrics.contrastiveness(features[:, order], seed=1) == pytest.approx(
        metrics.contrastiveness(features, seed=1)
    )
    assert metrics.contrastiveness(3 * features + 1, seed=1) == pytest.approx(
        metrics.contrastiveness(features, seed=1), abs=1e-4
    )
    assert metrics.attribute_alignment(changed, attributes[images]) == pytest.approx(
        metrics.attribute_alignment(features, attributes)
    )
    expected = metrics.structural_grounding(weight, kinds)
    assert metrics.structural_grounding(weight[classes][:, order], kinds[classes]) == pytest.approx(expected)


def test_one_picture_per_class_and_a_class_that_is_never_predicted_are_fine():
    features, labels = np.array([[1.0, 0.0], [0.0, 1.0], [0.0, 3.0]]), np.array([0, 1, 2])
    assert metrics.class_independence(features, labels) == pytest.approx(1 - (1.0 + 0.75) / 2)
    counts = metrics.confusion(torch.tensor([0, 0, 1]), torch.tensor(labels), 3)
    assert counts.sum(0).tolist() == [2, 1, 0]
    assert counts.sum(1).tolist() == [1, 1, 1]


def test_everything_at_once_is_the_same_as_one_by_one(planted, trained):
    store, dataset = planted
    model = trained[2]
    result = metrics.evaluate(model, store, dataset, k=2)
    from qpm_lib.model.outputs import outputs_of

    out = outputs_of(model, store, store.rows(train=False))
    labels = store.labels[store.rows(train=False)]
    values = result.values
    assert values["accuracy"] == pytest.approx(metrics.accuracy(out.logits, labels))
    assert values["sid"] == pytest.approx(
        metrics.sid(out.maps, model.class_weight, out.logits.argmax(1), k=2), rel=1e-5
    )
    assert list(values) == list(metrics.MEASURES)
    assert set(result.notes) == {name for name, value in values.items() if value is None}
    assert result.notes["plausibility"] == "the data set has no segmentations"
    assert result.notes["structural_grounding"] == "the data set has no class attributes"
    low, high = result.intervals["accuracy"]
    assert low <= values["accuracy"] <= high


def test_what_is_not_defined_is_none_with_a_reason(planted, trained):
    store, dataset = planted
    dataset = replace(dataset, class_attributes=np.eye(4))
    model = copy.deepcopy(trained[2])
    result = metrics.evaluate(model, store, dataset, k=5)
    assert result.values["sid"] is None
    assert result.notes["sid"] == "no predicted class has 5 features"
    assert result.notes["structural_grounding"] == "no two classes have an attribute in common"
    dataset = replace(dataset, class_attributes=np.eye(4) + np.eye(4)[::-1])
    assert metrics.evaluate(model, store, dataset, k=2).values["structural_grounding"] is not None
    model.head.weight[1] = 0
    result = metrics.evaluate(model, store, dataset, k=2)
    assert result.values["structural_grounding"] is None
    assert result.notes["structural_grounding"] == "class b has no features"
    no_tests = copy.copy(store)
    no_tests.is_train = torch.ones_like(store.is_train)
    with pytest.raises(ValueError, match="test split is empty"):
        metrics.evaluate(model, no_tests, dataset)


def test_bootstrap_intervals_are_those_of_the_normal_theory():
    values = (np.arange(1000) < 700).astype(float)
    low, high = metrics.bootstrap_interval(values, seed=1)
    error = 1.96 * np.sqrt(0.7 * 0.3 / 1000)
    assert low == pytest.approx(0.7 - error, abs=0.003)
    assert high == pytest.approx(0.7 + error, abs=0.003)
    assert metrics.bootstrap_interval(values, seed=1) == (low, high)
    assert metrics.bootstrap_interval(np.array([0.4])) == (0.4, 0.4)
    assert metrics.bootstrap_interval(np.ones(50)) == (1.0, 1.0)


def test_plausibility_is_streamed_with_masks_of_the_data_set(toy, toy_store):
    probe = __import__("qpm_lib").train_linear_probe(toy_store)
    result = metrics.evaluate(probe, toy_store, toy)
    from qpm_lib.model.outputs import outputs_of

    rows = toy_store.rows(train=False)
    out = outputs_of(probe, toy_store, rows)
    masks = torch.stack([torch.as_tensor(toy.mask(int(r))) for r in rows])
    expected = metrics.plausibility(out.maps, probe.class_weight, out.logits.argmax(1), masks)
    assert result.values["plausibility"] == pytest.approx(expected, rel=1e-4)
    assert 0.2 < result.values["plausibility_chance"] < result.values["plausibility_centre"] < 1
    uniform = metrics.plausibility(
        torch.ones_like(out.maps[:, :1]), torch.ones(1, 1), torch.zeros(len(rows)).long(), masks
    )
    assert result.values["plausibility_chance"] == pytest.approx(uniform, rel=1e-4)
    assert result.values["pointing_centre"] > 0.8
    assert not {"plausibility_chance", "plausibility_centre", "pointing_centre"} & set(result.intervals)
    assert result.values["attribute_alignment"] is not None


@pytest.mark.gpu
def test_measures_on_cuda_agree_with_the_cpu():
    generator = torch.Generator().manual_seed(0)
    maps, weight = torch.rand(8, 6, 4, 4, generator=generator), torch.rand(3, 6, generator=generator)
    predicted, masks = torch.randint(3, (8,), generator=generator), torch.rand(8, 9, 9, generator=generator) > 0.5
    there = maps.cuda(), weight.cuda(), predicted.cuda()
    assert metrics.sid(*there, k=3) == pytest.approx(metrics.sid(maps, weight, predicted, k=3), rel=1e-4)
    assert metrics.plausibility(*there, masks.cuda()) == pytest.approx(
        metrics.plausibility(maps, weight, predicted, masks), rel=1e-4
    )


def test_values_that_are_not_finite_are_named_and_masks_of_255_are_masks():
    maps, weight, predicted = spots([0, 5]), torch.ones(1, 2), torch.tensor([0])
    mask = torch.zeros(1, 4, 4, dtype=torch.uint8)
    mask[0, 0, 0] = 1
    grid_masks = metrics.grid_masks.__wrapped__  # bytes are no booleans for the shape checks
    torch.testing.assert_close(grid_masks(255 * mask, 2), metrics.grid_masks(mask.bool(), 2))
    maps[0, 0, 0, 0] = float("nan")
    with pytest.raises(ValueError, match="maps holds 1 values that are not finite"):
        metrics.sid(maps, weight, predicted, k=2)
