"""SLDD and Q-SENN: the elastic net against scikit-learn and cvxpy, the layers against their definition."""

import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from qpm_lib.selection.baselines.elastic_net import (
    Layer,
    elastic_net,
    elastic_net_path,
    group_path,
    penalty_path,
    strongest_penalty,
)
from qpm_lib.selection.baselines.sldd import SparseSelection, qsenn_layer, select_sparse, sldd_layer, standardised


def planted(seed=0, n=300, f=12, c=4):
    """Features 0 to c-1 are raised for one class each, weaker from one to the next; the others are noise."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, c, n)
    x = rng.normal(size=(n, f))
    x[np.arange(n), y] += 2.0 - 0.2 * y
    return standardised(torch.tensor(x)), torch.tensor(y)


def loss(x, y, layer, strength, mixing, group):
    size = layer.weight.norm(dim=0).sum() if group else layer.weight.abs().sum()
    penalty = strength * (mixing * size + (1 - mixing) / 2 * layer.weight.square().sum())
    return float(F.cross_entropy(x @ layer.weight.T + layer.bias, y) + penalty)


def zero(x, c):
    return Layer(x.new_zeros(c, x.shape[1]), x.new_zeros(c))


@pytest.mark.parametrize("strength", [0.1, 0.02, 0.003])
def test_elastic_net_equals_scikit_learn(strength):
    from sklearn.linear_model import LogisticRegression

    x, y = planted()
    ours = elastic_net(x, y, strength, mixing=0.7, start=zero(x, 4), tolerance=1e-9, max_steps=20000)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # names of arguments change between versions
        reference = LogisticRegression(
            penalty="elasticnet", solver="saga", l1_ratio=0.7, C=1 / (strength * len(y)), tol=1e-9, max_iter=50000
        ).fit(x.numpy(), y.numpy())
    np.testing.assert_allclose(ours.weight.numpy(), reference.coef_, atol=1e-4)
    theirs = Layer(torch.tensor(reference.coef_), torch.tensor(reference.intercept_))
    assert loss(x, y, ours, strength, 0.7, group=False) <= loss(x, y, theirs, strength, 0.7, group=False) + 1e-9


def test_the_path_is_solved_as_well_as_by_scikit_learn():
    """With the settings the baselines use, on correlated features, at the weakest penalty."""
    from sklearn.linear_model import LogisticRegression

    rng = np.random.default_rng(8)
    x, y = planted(8, n=400)
    x = standardised(torch.cat([x, x + 0.4 * torch.tensor(rng.normal(size=x.shape))], 1))
    *_, last = elastic_net_path(x, y, 4, mixing=0.99)
    strength = penalty_path(strongest_penalty(x, y, 4, mixing=0.99, group=False))[-1]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        options = {
            "penalty": "elasticnet",
            "solver": "saga",
            "l1_ratio": 0.99,
            "C": 1 / (strength * len(y)),
            "tol": 1e-7,
            "max_iter": 200000,
        }
        reference = LogisticRegression(**options).fit(x.numpy(), y.numpy())
    theirs = Layer(torch.tensor(reference.coef_), torch.tensor(reference.intercept_))
    ours, best = (loss(x, y, layer, strength, 0.99, group=False) for layer in (last, theirs))
    assert ours == pytest.approx(best, rel=1e-4)
    np.testing.assert_allclose(last.weight, theirs.weight, atol=0.02 * float(theirs.weight.abs().max()))


@pytest.mark.parametrize("strength", [0.1, 0.02])
def test_the_group_penalty_equals_cvxpy(strength):
    import cvxpy as cp

    x, y = planted(1, n=120, f=6, c=3)
    ours = elastic_net(x, y, strength, mixing=0.8, group=True, start=zero(x, 3), tolerance=1e-9, max_steps=20000)
    w, b = cp.Variable((3, 6)), cp.Variable(3)
    scores = x.numpy() @ w.T + np.ones((120, 1)) @ cp.reshape(b, (1, 3), order="C")
    right = cp.sum(cp.multiply(scores, F.one_hot(y).numpy()), axis=1)
    penalty = 0.8 * cp.sum(cp.norm(w, 2, axis=0)) + 0.1 * cp.sum_squares(w)
    best = cp.Problem(cp.Minimize(cp.sum(cp.log_sum_exp(scores, axis=1) - right) / 120 + strength * penalty)).solve(
        solver=cp.CLARABEL
    )
    assert loss(x, y, ours, strength, 0.8, group=True) == pytest.approx(best, abs=1e-6)
    np.testing.assert_allclose(ours.weight.numpy(), w.value, atol=1e-3)


@pytest.mark.parametrize("group", [False, True])
def test_above_the_strongest_penalty_all_weights_are_zero(group):
    x, y = planted(2)
    top = strongest_penalty(x, y, 4, mixing=0.8, group=group)
    options = {"mixing": 0.8, "group": group, "start": zero(x, 4), "tolerance": 1e-9, "max_steps": 5000}
    assert not elastic_net(x, y, top * 1.001, **options).weight.any()
    assert elastic_net(x, y, top * 0.98, **options).weight.any()
    path = penalty_path(top)
    assert len(path) == 100
    np.testing.assert_allclose([path[0], path[-1]], [top, top / 1000])


def test_the_group_path_admits_informative_features_first():
    x, y = planted(3)
    order = group_path(x, y, 4, 9, mixing=0.8)
    assert set(order[:4]) == {0, 1, 2, 3}
    assert len(set(order)) == 9
    assert group_path(x, y, 4, 2, mixing=0.8) == order[:2]
    assert sorted(group_path(x, y, 4, 12, mixing=0.8)) == list(range(12))


def test_sldd_keeps_the_largest_weights_and_the_bias():
    x, y = planted(4)
    layer = sldd_layer(x, y, 4, 2)
    assert int((layer.weight != 0).sum()) == 8
    accuracy = float(((x @ layer.weight.T + layer.bias).argmax(1) == y).float().mean())
    assert accuracy > 0.7


def test_qsenn_is_ternary_with_the_published_bias():
    x, y = planted(5)
    layer = qsenn_layer(x, y, 4, 2)
    values = layer.weight.unique()
    assert len(values) <= 3
    assert int((layer.weight != 0).sum()) == 8
    size = layer.weight.abs().max()
    assert set((values / size).round(decimals=5).tolist()) <= {-1.0, 0.0, 1.0}
    surplus = layer.weight.sign().sum(1)
    top = layer.bias.max()
    expected = top - (surplus - surplus.min()) * 2 * top / (surplus.max() - surplus.min()).clamp_min(1e-12)
    np.testing.assert_allclose(layer.bias, expected, rtol=1e-5)
    if surplus.max() > surplus.min():
        assert layer.bias.min() == pytest.approx(-float(top), rel=1e-5)


@pytest.mark.parametrize("method", ["sldd", "qsenn"])
def test_selections_are_saved_whole(method, tmp_path):
    x, y = planted(6)
    found = select_sparse(x.numpy(), y.numpy(), n_features=5, n_per_class=2, method=method)
    found.save(tmp_path / "s.json", made_by="abc")
    again = SparseSelection.load(tmp_path / "s.json")
    for name in ("features", "weight", "bias"):
        np.testing.assert_array_equal(getattr(found, name), getattr(again, name))
    assert again.method == method
    assert found.features.tolist() == sorted(set(found.features.tolist()))
    assert found.assignment.sum() == 8
    again_same = select_sparse(x.numpy(), y.numpy(), n_features=5, n_per_class=2, method=method)
    np.testing.assert_array_equal(found.weight, again_same.weight)


def test_bad_input_is_refused():
    x, y = (t.numpy() for t in planted(7))
    for n in (0, 13):
        with pytest.raises(ValueError, match=rf"n_features .={n}. must be from 1 to the number of features .=12"):
            select_sparse(x, y, n_features=n, n_per_class=2)
    for k in (0, 4):
        with pytest.raises(ValueError, match=rf"n_per_class .={k}. must be from 1 to n_features"):
            select_sparse(x, y, n_features=3, n_per_class=k)
    with pytest.raises(ValueError, match="no feature tells the classes apart"):
        select_sparse(np.ones_like(x), y, n_features=3, n_per_class=2, method="qsenn")
    x[0, 0] = np.nan
    with pytest.raises(ValueError, match="1 values that are not finite"):
        select_sparse(x, y, n_features=3, n_per_class=2)


@pytest.mark.parametrize("method", ["sldd", "qsenn"])
def test_models_of_the_baselines_train_explain_and_come_back(method, planted, planted_config, trained, tmp_path):
    import qpm_lib
    from qpm_lib.core.profiles import load_profile
    from qpm_lib.model.outputs import accuracy, feature_vectors, outputs_of

    store, _ = planted
    rows = store.rows(train=True)
    vectors, labels = feature_vectors(trained[0], store, rows), store.labels[rows].numpy()
    chosen = select_sparse(vectors, labels, n_features=6, n_per_class=2, method=method)
    tuned = load_profile("toy", **{"selection.method": method}).fine_tune
    config = replace(
        planted_config,
        selection=replace(planted_config.selection, method=method),
        fine_tune=replace(tuned, epochs=14, lr=5e-3),
    )
    before = trained[0].adapter.layers[0].weight.clone()
    model, history = qpm_lib.fine_tune(trained[0], chosen, store, config)
    assert torch.equal(before, trained[0].adapter.layers[0].weight)
    assert [epoch.epoch for epoch in history] == list(range(1, 15))
    assert accuracy(model, store) > 0.7
    weight = model.class_weight
    assert int((weight != 0).sum()) <= 8
    if method == "sldd":
        np.testing.assert_allclose(weight.numpy(), chosen.weight)
    else:
        assert len((weight[weight != 0].abs() / weight.abs().max()).round(decimals=5).unique()) == 1
    out = outputs_of(model, store, store.rows(train=False)[:5])
    target = out.logits.argmax(1)
    explanation = model.explain_tokens(out, target)
    torch.testing.assert_close(
        explanation.contributions.sum(1) + explanation.constant, out.logits.amax(1), rtol=1e-4, atol=1e-4
    )
    constant = (weight[target] * (model.head.mean / model.head.std)).sum(1) - model.head.bias[target]
    torch.testing.assert_close(
        model.local_map(out, target).sum((1, 2)) - constant, out.logits.amax(1), rtol=1e-3, atol=1e-3
    )
    model.save(tmp_path / "m", backbone={})
    again = qpm_lib.DinoQPM.load(tmp_path / "m")
    torch.testing.assert_close(outputs_of(again, store, store.rows(train=False)[:5]).logits, out.logits)


def test_choosing_a_method_brings_its_training_unless_it_is_set():
    from qpm_lib.core.profiles import load_profile

    plain, sldd, qsenn = (load_profile("cub", **{"selection.method": m}).fine_tune for m in ("qpm", "sldd", "qsenn"))
    assert (plain.epochs, sldd.epochs, qsenn.epochs) == (25, 50, 70)
    lengths = {load_profile("toy", **{"selection.method": m}).fine_tune.epochs for m in ("qpm", "sldd", "qsenn")}
    assert len(lengths) == 1
    assert (sldd.diversity, sldd.l1_maps, sldd.l1_vector, sldd.dropout) == (0.196, 0.0, 0.0, 0.1)
    assert load_profile("cub", **{"selection.method": "sldd", "fine_tune.epochs": 3}).fine_tune.epochs == 3


def test_the_rounds_of_qsenn_are_those_of_the_paper_or_of_the_release():
    from qpm_lib.core.profiles import load_profile
    from qpm_lib.model.stages import qsenn_rounds

    intended = qsenn_rounds(load_profile("cub", **{"selection.method": "qsenn"}))
    assert [epochs for epochs, _ in intended] == [10, 10, 10, 40]
    np.testing.assert_allclose([lr / 5e-3 for _, lr in intended], [1, 0.9, 0.81, 0.729])
    released = load_profile("cub", **{"selection.method": "qsenn", "selection.rounds": "released"})
    assert qsenn_rounds(released) == [(25, 5e-3)] * 4
    with pytest.raises(ValueError, match=r"fine_tune.epochs .=3. must be at least 4"):
        load_profile("cub", **{"selection.method": "qsenn", "fine_tune.epochs": 3})
