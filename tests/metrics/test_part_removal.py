"""Deletion with the truth: against all orders, and planted maps in the right order."""

import itertools

import numpy as np
import pytest
from test_ground_truth import GRID, truths  # noqa: F401  (a fixture)

from qpm_lib import metrics
from qpm_lib.metrics.part_removal import best_area, mean_area, removal_area
from qpm_lib.metrics.parts import VARIED, paint


def test_best_and_mean_are_those_of_all_orders():
    rng = np.random.default_rng(0)
    held = (np.arange(256)[:, None] >> np.arange(8)) & 1
    values = held @ rng.normal(0.5, 0.4, 8) + rng.normal(0, 0.2, 256)
    masks = np.array([[255 & ~sum(1 << p for p in order[:n]) for n in range(9)]
                      for order in itertools.permutations(range(8))])  # fmt: skip
    areas = (np.trapezoid(values[masks], axis=1) / 8 - values[0]) / (values[255] - values[0])
    assert best_area(values) == pytest.approx(areas.min())
    assert mean_area(values) == pytest.approx(areas.mean())
    assert removal_area(values, np.arange(8)) == pytest.approx(areas[0])


def test_a_part_that_is_all_gives_the_extremes():
    values = (np.arange(256) >> 3 & 1).astype(float)  # part 3 is the whole score
    first = [3, 0, 1, 2, 4, 5, 6, 7]
    assert removal_area(values, np.array(first)) == pytest.approx(0.5 / 8)
    assert removal_area(values, np.array(first[::-1])) == pytest.approx(7.5 / 8)
    assert best_area(values) == pytest.approx(0.5 / 8)
    assert mean_area(values) == pytest.approx(0.5)


@pytest.fixture
def exact(truths):  # noqa: F811
    """Answers of a model that adds up the exact values of the truths."""
    held = (np.arange(256)[:, None] >> np.arange(8)) & 1
    logits = np.zeros((len(truths), 256, 4), np.float32)
    for i, truth in enumerate(truths):
        logits[i, :, truth.target] = held @ truth.value
    return metrics.ExactParts(np.arange(len(truths)), logits, logits[:, -1])


def test_planted_maps_are_in_order(truths, exact):  # noqa: F811
    rng, found = np.random.default_rng(0), []
    for quality in (-1.0, 0.0, 0.3, 0.6, 1.0):
        maps = []
        for truth in truths:
            noise = rng.standard_normal((6, len(VARIED)))
            value = quality * truth.value / truth.value.std() + (1 - abs(quality)) * noise
            maps.append(np.stack([paint(one, truth.covered[: len(VARIED)]) for one in value]))
        runs = [metrics.part_deletion([m[r : r + 1] for m in maps], exact, truths) for r in range(6)]
        skill = [(r["scores"] - r["random"]).mean() / (r["ceiling"] - r["random"]).mean() for r in runs]
        found.append(np.mean(skill))
    assert found == sorted(found)
    assert abs(found[1]) < 0.25
    assert found[-1] == pytest.approx(1, abs=0.05)  # a part that cannot be seen has no place on a map


def test_what_does_not_fit_is_named(truths, exact):  # noqa: F811
    maps = [np.zeros((1, GRID, GRID))] * len(truths)
    with pytest.raises(ValueError, match="do not fit exact answers"):
        metrics.part_deletion(maps[1:], exact, truths)
    found = metrics.part_deletion(maps, exact, truths)
    again = metrics.part_deletion(maps, exact, truths)
    assert np.array_equal(found["scores"], again["scores"], equal_nan=True)  # ties in one fixed random order
