"""Comparing methods on the same pictures: against closed forms, planted differences, and levels of error."""

import itertools

import numpy as np
import pytest
from scipy import stats

from qpm_lib.metrics.paired import Scores, agreement_over_methods, differences, mean_score

RNG = np.random.default_rng


def plain(*rows):
    return Scores.plain(np.array(rows, float))


def test_a_mean_has_the_interval_of_its_standard_error():
    values = RNG(0).normal(0.6, 0.2, (1, 200))
    found = mean_score(Scores.plain(values))
    half = 1.96 * values.std() / np.sqrt(200)
    assert found.value == pytest.approx(values.mean())
    assert (found.high - found.low) / 2 == pytest.approx(half, rel=0.1)
    assert found.count == 200


def test_a_skill_is_the_share_of_the_room_between_zero_and_one():
    found = mean_score(Scores(np.array([[0.4, 0.6]]), np.array([[0.2, 0.2]]), np.array([[0.8, 1.0]])))
    assert found.value == pytest.approx((0.5 - 0.2) / (0.9 - 0.2))
    assert mean_score(plain([np.nan, np.nan])) is None


def test_differences_are_those_of_the_means_and_intervals_those_of_a_paired_bootstrap():
    own = RNG(0).normal(0.6, 0.2, (2, 150))
    other = own - 0.1 + RNG(1).normal(0, 0.1, own.shape)
    [found] = differences({"a": Scores.plain(own), "b": Scores.plain(other)}).values()
    apart = (own - other).mean(0)
    assert found.value == pytest.approx(apart.mean())
    spread = 1.96 * apart.std() / np.sqrt(150)
    assert found.low == pytest.approx(apart.mean() - spread, abs=0.2 * spread)
    assert found.high == pytest.approx(apart.mean() + spread, abs=0.2 * spread)
    assert found.effect == pytest.approx(apart.mean() / apart.std(ddof=1))
    assert found.p < 0.001
    assert found.pictures == 150


def test_differences_of_skills_have_the_room_of_both():
    zero, one = np.full((1, 4), 0.2), np.full((1, 4), 0.7)
    found = differences({n: Scores(np.full((1, 4), v), zero, one) for n, v in (("a", 0.6), ("b", 0.5))})
    assert found["a", "b"].value == pytest.approx(0.1 / 0.5)


def test_p_values_are_corrected_for_the_number_of_pairs_in_holms_steps():
    own = RNG(1).normal(0, 1, (1, 100))
    others = {f"m{i}": own - s + RNG(i).normal(0, 1, own.shape) for i, s in enumerate((0.2, 0.25, 0.05))}
    scores = {"own": Scores.plain(own), **{n: Scores.plain(v) for n, v in others.items()}}
    together = {b: d.p for (_, b), d in differences(scores, against="own").items()}
    alone = {n: differences({"own": scores["own"], n: scores[n]})["own", n].p for n in others}
    first, second, third = sorted(alone, key=alone.get)
    assert together[first] == pytest.approx(min(1, 3 * alone[first]))
    assert together[second] == pytest.approx(max(together[first], min(1, 2 * alone[second])))
    assert together[third] == pytest.approx(max(together[second], alone[third]))
    assert len(differences(scores)) == 6
    assert all(differences(scores)["own", n].p >= together[n] for n in others)


def test_methods_that_are_alike_are_called_different_about_as_often_as_p_says():
    rng = RNG(2)
    found = []
    for _ in range(60):
        pair = {n: Scores.plain(rng.normal(0, 1, (1, 60))) for n in "ab"}
        found.append(differences(pair)["a", "b"].p)
    assert 0 <= np.mean(np.array(found) < 0.05) <= 0.15
    assert 0.3 < np.mean(found) < 0.7


@pytest.mark.parametrize("pictures", [1, 2, 4, 8, 16, 60])
def test_with_many_methods_that_are_alike_hardly_any_pair_is_called_different(pictures):
    wrong = 0
    for seed in range(12):
        scores = {f"m{i}": Scores.plain(RNG([seed, i]).normal(0, 1, (1, pictures))) for i in range(12)}
        wrong += any(d.p < 0.05 for d in differences(scores).values())
    assert wrong <= 2


def test_p_is_that_of_all_exchanges_where_they_can_be_counted():
    own, other = RNG(5).normal(0.3, 1, 8), RNG(6).normal(0, 1, 8)
    signs = np.array(list(itertools.product([1, -1], repeat=8)))
    exact = np.mean(np.abs(signs @ (own - other)) >= abs((own - other).sum()) - 1e-12)
    found = differences({"a": Scores.plain(own[None]), "b": Scores.plain(other[None])})["a", "b"]
    assert found.p == pytest.approx(exact, abs=0.01)
    always = {"a": plain([1.0, 2.0, 3.0]), "b": plain([0.0, 1.0, 2.5])}
    assert differences(always)["a", "b"].p == pytest.approx(2 / 2**3, abs=0.01)
    alone = differences({"a": plain([1.0]), "b": plain([0.0])})["a", "b"]
    assert alone.p == 1
    assert np.isnan(alone.low)


@pytest.mark.parametrize("pictures", [5, 10, 40])
def test_intervals_cover_the_truth_about_as_often_as_they_say(pictures):
    found = [mean_score(Scores.plain(RNG([pictures, s]).normal(0.3, 1, (1, pictures)))) for s in range(150)]
    assert 0.87 <= np.mean([one.low <= 0.3 <= one.high for one in found]) <= 1


def test_the_effect_has_the_sign_of_the_difference():
    room = np.array([[1.0] * 6, [0.1] * 6])
    scores = [
        Scores(v, np.zeros((2, 6)), room) for v in (np.array([[0.5] * 6, [0.0] * 6]), np.array([[0.0] * 6, [0.2] * 6]))
    ]
    scores[0].values[0] += RNG(0).normal(0, 0.01, 6)
    found = differences(dict(zip("ab", scores, strict=True)))["a", "b"]
    assert found.value < 0
    assert found.effect < 0


def test_a_picture_that_one_model_does_not_allow_counts_for_the_others():
    own, other = plain([1.0, 0.5, 0.0], [1.0, np.nan, 0.5]), plain([0.5, 0.5, 0.0], [0.0, np.nan, 0.5])
    found = differences({"a": own, "b": other})["a", "b"]
    assert found.value == pytest.approx(((0.5 - 1 / 3) + (0.75 - 0.25)) / 2)
    assert found.pictures == 3
    nowhere = plain([np.nan] * 3, [np.nan] * 3)
    assert differences({"a": own, "b": nowhere}) == {}
    half = {"a": plain([1.0, 0.5, 0.0], [np.nan] * 3), "b": plain([0.5, 0.5, 0.0], [np.nan] * 3)}
    assert differences(half)["a", "b"].value == pytest.approx(1 / 6)


def test_a_picture_that_one_method_has_no_score_for_does_not_count_for_its_pairs():
    scores = {"a": plain([1.0, 0.0, 0.2]), "b": plain([np.nan, 0.0, 0.1]), "c": plain([0.5, 0.0, 0.2])}
    found = differences(scores)
    assert found["a", "b"].value == pytest.approx(0.05)
    assert (found["a", "b"].pictures, found["a", "c"].pictures) == (2, 3)


def test_what_does_not_belong_together_is_refused():
    with pytest.raises(ValueError, match="method 'b' was not measured on the same"):
        differences({"a": plain([1.0, 0.5]), "b": plain([1.0])})
    with pytest.raises(ValueError, match="method 'c' was not measured: choose from a, b"):
        differences({"a": plain([1.0, 0.5]), "b": plain([1.0, 0.5])}, against="c")


def noisy(means, seed, spread, pictures):
    return {f"m{i}": Scores.plain(m + RNG([seed, i]).normal(0, spread, (1, pictures))) for i, m in enumerate(means)}


def test_agreement_is_the_rank_correlation_of_means_over_methods():
    means = RNG(4).normal(0, 1, (2, 12))
    truth, cheap = (noisy(row, j, 0.01, 50) for j, row in enumerate(means))
    found = agreement_over_methods(truth, cheap)
    assert found.value == pytest.approx(stats.spearmanr(*means).statistic, abs=0.03)
    assert found.count == 12
    assert found.low < found.value < found.high
    same = agreement_over_methods(truth, truth)
    assert same.value == pytest.approx(1, abs=0.02)
    backwards = {n: Scores.plain(-s.values) for n, s in truth.items()}
    assert agreement_over_methods(truth, backwards).value == pytest.approx(-1, abs=0.02)
    assert agreement_over_methods(dict(list(truth.items())[:3]), cheap) is None
    assert agreement_over_methods(noisy(means[0], 0, 0.01, 3), noisy(means[1], 1, 0.01, 3)) is None


def test_measures_that_share_their_noise_do_not_agree_where_methods_are_alike():
    inside, values = 0, []
    for seed in range(20):
        shared = RNG([seed, 1]).normal(0, 1, (12, 40))
        one, other = (shared + RNG([seed, j]).normal(0, 0.3, (12, 40)) for j in (2, 3))
        one, other = ({f"m{i}": Scores.plain(row[None]) for i, row in enumerate(rows)} for rows in (one, other))
        found = agreement_over_methods(one, other)
        values.append(found.value)
        inside += found.low <= 0 <= found.high
    assert inside >= 18
    assert abs(np.mean(values)) < 0.2


def test_a_measure_agrees_with_itself_as_far_as_pictures_allow():
    means = np.linspace(0, 1, 12)
    few, many = (agreement_over_methods(*[noisy(means, 0, 1.0, n)] * 2).value for n in (8, 400))
    assert few < many
    assert many > 0.9
