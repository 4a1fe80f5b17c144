"""Comparing methods on the same pictures: against a closed form, planted differences, and levels of error."""

import numpy as np
import pytest

from qpm_lib.metrics.skill import CHECKS, PartChecks, skill_differences


def checks(scores):
    """Random is 0 and the ceiling 1 on every picture, so that skill is the mean of the scores."""
    scores = np.asarray(scores, float)
    there = np.where(np.isnan(scores), np.nan, 1.0)
    fill = {check: np.full(len(scores), np.nan) for check in CHECKS[1:]}
    first = CHECKS[0]
    return PartChecks({first: scores, **fill}, {first: 0 * there, **fill}, {first: there, **fill})


def test_differences_are_those_of_the_means_and_intervals_those_of_a_paired_bootstrap():
    rng = np.random.default_rng(0)
    own = rng.normal(0.6, 0.2, (2, 150))
    other = own - 0.1 + rng.normal(0, 0.1, own.shape)
    found = skill_differences([checks(row) for row in own], {"b": [checks(row) for row in other]}, CHECKS[0])["b"]
    per_picture = (own - other).mean(0)
    assert found.value == pytest.approx(per_picture.mean())
    spread = 1.96 * per_picture.std() / np.sqrt(150)
    assert found.low == pytest.approx(per_picture.mean() - spread, abs=0.2 * spread)
    assert found.high == pytest.approx(per_picture.mean() + spread, abs=0.2 * spread)
    assert found.p < 0.001
    assert found.pictures == 150


def test_p_values_are_corrected_for_the_number_of_methods_in_holms_steps():
    rng = np.random.default_rng(1)
    own = rng.normal(0, 1, 100)
    others = {f"m{i}": own - shift + rng.normal(0, 1, 100) for i, shift in enumerate((0.2, 0.25, 0.05))}
    alone = {n: skill_differences([checks(own)], {n: [checks(v)]}, CHECKS[0])[n].p for n, v in others.items()}
    together = {n: d.p for n, d in skill_differences([checks(own)], {n: [checks(v)] for n, v in others.items()},
                                                     CHECKS[0]).items()}  # fmt: skip
    first, second, third = sorted(alone, key=alone.get)
    assert together[first] == pytest.approx(min(1, 3 * alone[first]))
    assert together[second] == pytest.approx(max(together[first], min(1, 2 * alone[second])))
    assert together[third] == pytest.approx(max(together[second], alone[third]))


def test_methods_that_are_alike_are_called_different_about_as_often_as_p_says():
    rng = np.random.default_rng(2)

    def p_value(seed):
        own, other = (checks(rng.normal(0, 1, 60)) for _ in range(2))
        return skill_differences([own], {"b": [other]}, CHECKS[0], seed=seed)["b"].p

    found = [p_value(i) for i in range(60)]
    assert 0 <= np.mean(np.array(found) < 0.05) <= 0.15
    assert 0.3 < np.mean(found) < 0.7


def test_a_picture_that_one_model_does_not_allow_counts_for_the_others():
    own, other = np.array([[1.0, 0.5, 0.0], [1.0, np.nan, 0.5]]), np.array([[0.5, 0.5, 0.0], [0.0, np.nan, 0.5]])
    found = skill_differences([checks(r) for r in own], {"b": [checks(r) for r in other]}, CHECKS[0])["b"]
    assert found.value == pytest.approx(((0.5 - 1 / 3) + (0.75 - 0.25)) / 2)
    assert found.pictures == 3
    assert skill_differences([checks(own[0])], {"b": [checks(other[0])]}, CHECKS[1]) == {}


def test_methods_of_other_pictures_are_refused():
    with pytest.raises(ValueError, match="method 'b' was not checked on the same"):
        skill_differences([checks([1.0, 0.5])], {"b": [checks([1.0, np.nan])]}, CHECKS[0])
    with pytest.raises(ValueError, match="method 'b' was not checked on the same"):
        skill_differences([checks([1.0, 0.5])], {"b": [checks([1.0])]}, CHECKS[0])


def test_a_model_that_allows_a_check_nowhere_is_left_out():
    rng = np.random.default_rng(3)
    own, other = rng.normal(0.6, 0.1, 40), rng.normal(0.5, 0.1, 40)
    nothing = checks(np.full(40, np.nan))
    alone = skill_differences([checks(own)], {"b": [checks(other)]}, CHECKS[0])["b"]
    assert skill_differences([checks(own), nothing], {"b": [checks(other), nothing]}, CHECKS[0])["b"] == alone
