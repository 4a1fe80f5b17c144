"""Exact values of parts, against their definitions, and the answers of a real model with their cache."""

import itertools
import math

import numpy as np
import pytest
import torch
from PIL import Image

from qpm_lib import metrics
from qpm_lib.data.toy.render import CLUTTER
from qpm_lib.data.toy.scenes import load_scenes
from qpm_lib.metrics import exact_answers as exact
from qpm_lib.metrics.exact_answers import SUBSETS
from qpm_lib.metrics.parts import VARIED

N = len(VARIED)


def test_shapley_values_are_averages_over_all_orders():
    values = np.random.default_rng(0).normal(size=SUBSETS)
    total = np.zeros(N)
    for order in itertools.permutations(range(N)):
        subset = 0
        for part in order:
            total[part] += values[subset | 1 << part] - values[subset]
            subset |= 1 << part
    np.testing.assert_allclose(metrics.shapley(values), total / math.factorial(N), atol=1e-9)


def test_shapley_values_add_up_and_work_along_the_last_axis():
    values = np.random.default_rng(1).normal(size=(3, 2, SUBSETS))
    found = metrics.shapley(values)
    assert found.shape == (3, 2, N)
    np.testing.assert_allclose(found.sum(-1), values[..., -1] - values[..., 0])
    np.testing.assert_allclose(found[1, 1], metrics.shapley(values[1, 1]))


def test_a_sum_of_parts_has_no_interactions():
    worth = np.arange(N) - 2.0
    values = ((np.arange(SUBSETS)[:, None] >> np.arange(N)) & 1) @ worth
    np.testing.assert_allclose(metrics.shapley(values), worth, atol=1e-9)
    np.testing.assert_allclose(metrics.interactions(values), 0, atol=1e-9)


def test_interactions_follow_their_definition():
    values, found = np.random.default_rng(2).normal(size=SUBSETS), np.zeros((N, N))
    for p, q in itertools.permutations(range(N), 2):
        for subset in range(SUBSETS):
            if subset >> p & 1 or subset >> q & 1:
                continue
            s = subset.bit_count()
            change = values[subset | 1 << p | 1 << q] - values[subset | 1 << p] - values[subset | 1 << q]
            weight = math.factorial(s) * math.factorial(N - s - 2) / math.factorial(N - 1)
            found[p, q] += weight * (change + values[subset])
    np.testing.assert_allclose(metrics.interactions(values), found, atol=1e-9)
    both = ((np.arange(SUBSETS) & 0b11) == 0b11).astype(float)
    assert metrics.interactions(both)[0, 1] == pytest.approx(1.0)


@pytest.mark.parametrize("function", [metrics.shapley, metrics.interactions])
def test_scores_of_all_subsets_are_needed(function):
    with pytest.raises(ValueError, match="256 subsets"):
        function(np.zeros(12))


def test_answers_are_those_of_the_model_and_are_kept(toy, backbone, untrained, tmp_path, monkeypatch):
    model, scenes, row = untrained[0], load_scenes(toy.root), int(toy.test_rows[0])
    options = {"folder": tmp_path, "workers": 0}
    found = metrics.exact_parts({"a": model}, backbone, toy, scenes, [row], **options)["a"]
    without = ["tail", "eye"]
    subset = sum(1 << p for p, part in enumerate(VARIED) if part not in without)
    asked = [[], without, list(VARIED), [CLUTTER]]
    images = [Image.fromarray(scenes.render(toy, row, without=w).image) for w in asked]
    expected = model.with_backbone(backbone).output(images).logits.numpy()
    got = [found.logits[0, -1], found.logits[0, subset], found.logits[0, 0], found.without_clutter[0]]
    np.testing.assert_allclose(got, expected, atol=1e-4)
    assert found.predicted[0] == expected[0].argmax()
    np.testing.assert_allclose(
        found.scores(np.array([1]), np.array([2]))[0, -1], expected[0, 1] - expected[0, 2], atol=1e-4
    )

    answers, drawn = exact._answer, []
    monkeypatch.setattr(exact, "_answer", lambda *a: drawn.append(1) or answers(*a))
    again = metrics.exact_parts({"b": model}, backbone, toy, scenes, [row], **options)["b"]
    np.testing.assert_array_equal(again.logits, found.logits)
    assert not drawn
    (kept,) = tmp_path.rglob("*.npy")
    kept.write_bytes(kept.read_bytes()[:100])
    mended = metrics.exact_parts({"a": model}, backbone, toy, scenes, [row], **options)["a"]
    np.testing.assert_array_equal(mended.logits, found.logits)
    assert drawn == [1]
    assert [path.suffix for path in tmp_path.rglob("*") if path.is_file()] == [".npy"]


def test_another_model_has_answers_of_its_own(toy, backbone, untrained, tmp_path, monkeypatch):
    monkeypatch.setattr(
        exact, "_answer", lambda models, *_: {n: np.full((SUBSETS + 1, 4), n == "b", np.float32) for n in models}
    )
    other = torch.nn.Linear(3, 4)
    other.device = torch.device("cpu")
    for models in ({"a": untrained[0]}, {"a": untrained[0], "b": other}):
        found = metrics.exact_parts(
            models, backbone, toy, load_scenes(toy.root), toy.test_rows[:2], folder=tmp_path, workers=0
        )
    assert not found["a"].logits.any()
    assert found["b"].logits.all()
    assert len(list(tmp_path.iterdir())) == 2


def test_no_pictures_are_refused(toy, backbone, untrained):
    with pytest.raises(ValueError, match="at least one row"):
        metrics.exact_parts({"a": untrained[0]}, backbone, toy, load_scenes(toy.root), [])
