"""The scikit-learn face: its own conventions, and the same result as the library's own calls."""

import copy

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.model_selection import cross_val_score
from sklearn.utils.estimator_checks import parametrize_with_checks

from qpm_lib.estimator import QPMClassifier

SMALL = {
    "n_features": 6,
    "n_per_class": 2,
    "n_dense": 16,
    "n_layers": 1,
    "hidden": 16,
    "device": "cpu",
    "profile": "toy",
}


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.SkipTestWarning")
@parametrize_with_checks([QPMClassifier(**{**SMALL, "n_dense": 8, "hidden": 8}, dense_epochs=2, fine_tune_epochs=2)])
def test_scikit_learn_conventions(estimator, check):
    check(estimator)


@pytest.fixture(scope="module")
def tokens(planted):
    store, dataset = planted
    names = np.array(dataset.class_names)
    parts = {}
    for train in (True, False):
        batch = store.fetch(store.rows(train))
        parts[train] = (batch.patches.numpy(), names[batch.labels.numpy()])
    return parts


@pytest.fixture(scope="module")
def fitted(tokens):
    return QPMClassifier(**SMALL, dense_epochs=30, fine_tune_epochs=15).fit(*tokens[True])


def test_planted_classes_are_found_by_name(fitted, tokens):
    x, y = tokens[False]
    assert fitted.score(x, y) > 0.9
    assert set(fitted.predict(x)) <= set("abcd")
    probability = fitted.predict_proba(x)
    np.testing.assert_allclose(probability.sum(1), 1)
    assert (fitted.classes_[probability.argmax(1)] == fitted.predict(x)).all()
    assert fitted.selection_.gap <= fitted.gap  # proven
    assert (fitted.model_.class_weight.sum(1) == 2).all()


def test_explanations_add_up_and_point_at_the_planted_patches(fitted, tokens):
    x, y = tokens[False]
    explanation = fitted.explain(x)
    total = explanation.contributions.sum(1) + explanation.constant
    np.testing.assert_allclose(total, fitted.decision_function(x).max(1), rtol=1e-4, atol=1e-4)
    right = fitted.predict(x) == y
    label = np.searchsorted(fitted.classes_, y)
    peak = explanation.maps.sum(1).flatten(1).argmax(1).numpy()
    hit = (peak == label) | (peak == 8 + label)
    assert hit[right].mean() > 0.9


def test_a_store_takes_the_place_of_arrays(planted, tokens):
    store, _ = planted
    model = QPMClassifier(**SMALL, dense_epochs=30, fine_tune_epochs=15).fit(store)
    assert model.score(store) > 0.9
    assert len(model.predict(store)) == int((~store.is_train).sum())
    assert model.score(*tokens[False]) == pytest.approx(model.score(store), abs=0.06)


def test_same_seed_same_model_and_clones_are_fresh(tokens):
    model = QPMClassifier(**SMALL, dense_epochs=3, fine_tune_epochs=3)
    first = model.fit(*tokens[True]).decision_function(tokens[False][0])
    again = clone(model).fit(*tokens[True]).decision_function(torch.tensor(tokens[False][0]))
    np.testing.assert_array_equal(first, again)
    with pytest.raises(ValueError, match="requires y"):
        clone(model).fit(tokens[True][0])


def test_cross_validation(tokens):
    scores = cross_val_score(QPMClassifier(**SMALL, dense_epochs=15, fine_tune_epochs=8), *tokens[True], cv=2)
    assert scores.mean() > 0.6


@pytest.mark.parametrize(
    ("settings", "change", "message"),
    [
        ({}, lambda x, y: (x[:, :7], y), "square number of patches"),
        ({}, lambda x, y: (np.where(x > 2, np.nan, x), y), "NaN"),
        ({}, lambda x, y: (x, np.full(len(y), "a")), "one class only"),
        ({"n_features": "6"}, lambda x, y: (x, y), "n_features .='6'.*whole number"),
        ({"n_per_class": 7}, lambda x, y: (x, y), "n_per_class"),
        ({"n_features": 2, "n_per_class": 2}, lambda x, y: (x, y), r"there are only 1"),
        ({"n_dense": 4}, lambda x, y: (x, y), "exceeds adapter.n_features"),
    ],
)
def test_bad_input(settings, change, message, tokens):
    with pytest.raises(ValueError, match=message):
        QPMClassifier(**{**SMALL, **settings}, dense_epochs=1, fine_tune_epochs=1).fit(*change(*tokens[True]))


def test_what_a_fitted_model_refuses(fitted, planted, tokens):
    store, _ = planted
    x, _ = tokens[False]
    for method in (fitted.predict, fitted.explain):
        with pytest.raises(ValueError, match="NaN"):
            method(np.where(x > 2, np.nan, x))
        with pytest.raises(ValueError, match="is expecting 12 features"):
            method(x[..., :5])
    with pytest.raises(ValueError, match="leave y out"):
        clone(fitted).fit(store, tokens[True][1])
    other = copy.copy(store)
    other.class_names = ("z", "y", "x", "w")
    with pytest.raises(ValueError, match="must be the same"):
        fitted.score(other)
    np.testing.assert_array_equal(
        fitted.predict(torch.tensor(x).bfloat16()), fitted.predict(torch.tensor(x).bfloat16().float())
    )
