"""Measures of prediction sets, on sets whose answers are known."""

import numpy as np
import pytest

from qpm_lib import metrics
from qpm_lib.conformal import coverage_interval

LABELS = np.repeat(np.arange(4), 25)
TWINS = np.array([[1, 0.9, 0, 0], [0.9, 1, 0, 0], [0, 0, 1, 0.8], [0, 0, 0.8, 1]])


def named(*classes):
    """One set for all pictures."""
    sets = np.zeros((100, 4), bool)
    sets[:, classes] = True
    return sets


def test_coherence_by_hand():
    sets = np.array([[1, 1, 0, 0], [1, 0, 1, 0], [1, 1, 1, 0], [1, 0, 0, 0], [0, 0, 0, 0]], bool)
    found = metrics.set_coherence(sets, TWINS)
    assert found[:3].tolist() == pytest.approx([0.9, 0.0, 0.3])
    assert np.isnan(found[3:]).all()


def test_planted_sets_are_ordered_rightly():
    """From the truth alone to nothing: coverage, size and coherence say what was planted."""
    truth = np.zeros((100, 4), bool)
    truth[np.arange(100), LABELS] = True
    both = truth | truth[:, [1, 0, 3, 2]]
    strangers = truth | truth[:, [2, 3, 0, 1]]
    options = {"alpha": 0.1, "calibrated_on": 120, "similarity": TWINS}
    planted = {"truth": truth, "twins": both, "strangers": strangers, "all": named(0, 1, 2, 3), "none": named()}
    q = {name: metrics.set_quality(sets, LABELS, **options) for name, sets in planted.items()}
    assert [q[n].coverage for n in q] == [1, 1, 1, 1, 0]
    assert [q[n].size for n in q] == [1, 2, 2, 4, 0]
    assert q["twins"].coherence == pytest.approx(0.85)
    assert q["strangers"].coherence == 0
    assert 0 < q["all"].coherence < q["twins"].coherence
    assert np.isnan(q["truth"].coherence)
    assert (q["truth"].single, q["none"].empty) == (1, 1)
    assert q["truth"].keeps_its_promise
    assert not q["none"].keeps_its_promise
    assert q["none"].expected == coverage_interval(120, 100, 0.1)


def test_a_class_that_is_never_held_is_seen():
    sets = named(0, 1, 2)
    found = metrics.set_quality(sets, LABELS, alpha=0.25, calibrated_on=50)
    assert (found.coverage, found.worst_class, found.worst_size) == (0.75, 0.0, 0.75)
    assert np.isnan(found.coherence)


def test_similarity_is_the_share_of_equal_parts():
    attributes = np.array([[1, 0, 1, 0], [1, 0, 0, 1], [0, 1, 0, 1], [0, 0, 0, 0]], float)
    found = metrics.attribute_similarity(attributes)
    assert found[:3, :3].tolist() == [pytest.approx(row) for row in ([1, 0.5, 0], [0.5, 1, 0.5], [0, 0.5, 1])]
    assert (found[3] == 0).all()
