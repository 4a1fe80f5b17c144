"""Prediction sets: their quantile by counting, their promise on data that are drawn anew, their neighbours."""

import math
from itertools import pairwise, product

import numpy as np
import pytest
import torch

from qpm_lib.conformal import (
    HierarchicalSets,
    SoftmaxSets,
    conformal_quantile,
    coverage_interval,
    mean_coverage_interval,
    path_scores,
)

SETS = [(0, 1, 2), (0, 1, 3), (1, 2, 4), (3, 4, 5), (0, 4, 5)]
WEIGHT = torch.zeros(5, 6).scatter_(1, torch.tensor(SETS), 1.0)
ALPHAS = (0.12, 0.1, 0.075, 0.05, 0.025)
_DRAWS = 400


def drawn(count, g, noise=0.8):
    """Pictures of a world that is known: features are strong where the class has them, with much noise."""
    labels = torch.randint(len(WEIGHT), (count,), generator=g)
    vector = (WEIGHT[labels] + noise * torch.randn(count, WEIGHT.shape[1], generator=g)).clamp_min(0)
    return vector, 2 * (vector @ WEIGHT.T), labels


@pytest.mark.parametrize(("count", "alpha"), [(19, 0.05), (20, 0.05), (100, 0.1), (7, 0.5), (9, 0.1), (8, 0.1)])
def test_the_quantile_bounds_the_share_that_was_asked(count, alpha):
    scores = torch.randperm(count, generator=torch.Generator().manual_seed(0)).float()
    found = conformal_quantile(scores, alpha)
    below = [sum(float(s) <= q for s in scores) for q in sorted(scores.tolist())]
    enough = [q for q, b in zip(sorted(scores.tolist()), below, strict=True) if b >= (count + 1) * (1 - alpha) - 1e-9]
    assert found == (enough[0] if enough else math.inf)


def test_intervals_of_coverage_are_those_of_draws():
    rng, (count, tests, alpha) = np.random.default_rng(0), (60, 200, 0.1)
    covered = []
    for _ in range(2000):
        scores = rng.random(count + tests)
        quantile = conformal_quantile(torch.tensor(scores[:count]), alpha)
        covered.append((scores[count:] <= quantile).mean())
    low, high = coverage_interval(count, tests, alpha)
    assert 0.94 < np.mean([(low <= c <= high) for c in covered]) < 0.985
    low, high = mean_coverage_interval(count, tests, alpha, 2000)
    assert low <= np.mean(covered) <= high
    assert coverage_interval(5, 100, 0.1) == (1.0, 1.0)


@pytest.mark.parametrize("method", ["hierarchical", "thr", "aps", "raps"])
def test_sets_hold_the_true_class_as_often_as_promised(method):
    """Draws of calibration and test pictures; the quantile has m = 100 pictures in each case."""
    g, half = torch.Generator().manual_seed(1), method == "hierarchical"
    covered, sizes = torch.zeros(_DRAWS, len(ALPHAS)), torch.zeros(_DRAWS, len(ALPHAS))
    for draw in range(_DRAWS):
        sets = HierarchicalSets(WEIGHT, seed=draw) if half else SoftmaxSets(method, seed=draw)
        sets.fit(*drawn(200 if half else 100, g))
        vector, logits, labels = drawn(50, g)
        for i, alpha in enumerate(ALPHAS):
            found = sets.predict(vector, logits, alpha)
            covered[draw, i] = found[torch.arange(50), labels].float().mean()
            sizes[draw, i] = found.sum(1).float().mean()
    for i, alpha in enumerate(ALPHAS):
        low, high = mean_coverage_interval(100, 50, alpha, _DRAWS)
        mean = float(covered[:, i].mean())
        assert low <= mean, alpha  # the promise
        assert mean <= high, alpha  # and no more than it costs: hardly any scores are equal
        assert sizes[:, i].mean() < len(WEIGHT)


def test_a_classifier_that_is_right_often_enough_names_one_class():
    """The level is k then, and nobody but the predicted class goes along so far."""
    labels = torch.arange(200) % 5
    vector = WEIGHT[labels] * (1 + torch.rand(200, 6, generator=torch.Generator().manual_seed(0)))
    sets = HierarchicalSets(WEIGHT).fit(vector, vector @ WEIGHT.T, labels, 0.1)
    assert sets.rule().level == 3
    assert sets.predict(vector, vector @ WEIGHT.T).sum(1).tolist() == [1] * 200


def test_a_level_from_the_same_pictures_promises_less_but_uses_all():
    vector, logits, labels = drawn(200, torch.Generator().manual_seed(0))
    assert HierarchicalSets(WEIGHT, split="published").fit(vector, logits, labels).rule().count == 200
    strict = HierarchicalSets(WEIGHT).fit(vector, logits, labels)
    assert strict.rule().count == 100
    assert strict.rule(0.3).level >= strict.rule(0.05).level


def test_sets_only_grow_when_more_is_asked_at_one_level():
    vector, logits, labels = drawn(400, torch.Generator().manual_seed(0))
    sets = HierarchicalSets(WEIGHT).fit(vector, logits, labels)
    for more, less in pairwise((0.4, 0.3, 0.2, 0.1, 0.05)):
        if sets.rule(more).level == sets.rule(less).level:
            assert (sets.predict(vector, logits, more) <= sets.predict(vector, logits, less)).all()


def test_the_members_of_a_set_begin_with_the_prediction_and_go_along_less_and_less():
    """Some sets are empty, some have one class, some have several."""
    g, sizes = torch.Generator().manual_seed(3), set()
    vector, logits, labels = drawn(300, g)
    sets = HierarchicalSets(WEIGHT).fit(vector[:200], logits[:200], labels[:200])
    for alpha in (0.02, 0.2, 0.3, 0.9):
        rule, inside = sets.rule(alpha), sets.predict(vector[200:], logits[200:], alpha)
        scores = path_scores(sets.tree(vector[200:], logits[200:]), rule.level)
        for i in range(100):
            members = sets.members(vector[200 + i], logits[200 + i], alpha)
            assert sorted(members) == inside[i].nonzero()[:, 0].tolist()
            predicted = int(logits[200 + i].argmax())
            assert predicted not in members or members[0] == predicted
            rest = [float(scores[i, c]) for c in members if c != predicted]
            assert rest == sorted(rest)
            sizes.add(len(members))
    assert {0, 1, 2} <= sizes


def test_sets_are_those_who_share_the_path_and_those_who_are_nearly_as_strong():
    vector, logits, labels = drawn(600, torch.Generator().manual_seed(4), noise=0.5)
    strength, wider = vector[400:] @ WEIGHT.T, 0
    for seed, alpha in product(range(10), np.linspace(0.02, 0.3, 15).tolist()):
        sets = HierarchicalSets(WEIGHT, seed=seed).fit(vector[:400], logits[:400], labels[:400])
        rule, tree = sets.rule(alpha), sets.tree(vector[400:], logits[400:])
        inside, along = sets.predict(vector[400:], logits[400:], alpha), tree.depth >= rule.level
        if rule.share is None:
            assert (inside <= along).all()
            continue
        strong = strength >= rule.share * strength.gather(1, tree.predicted[:, None]) - 1e-5
        assert torch.equal(inside, along | strong)
        wider += 1
    assert 10 <= wider <= 100


def test_too_few_pictures_give_the_whole_set_and_say_so(caplog):
    vector, logits, labels = drawn(12, torch.Generator().manual_seed(0))
    sets = HierarchicalSets(WEIGHT).fit(vector, logits, labels, 0.05)
    assert "6 calibration pictures do not support alpha = 0.05" in caplog.text
    assert "an alpha of at least 0.143" in caplog.text
    assert sets.predict(vector, logits).all()


def test_softmax_sets_by_hand():
    """Probabilities 0.5, 0.3, 0.2; the true classes of the calibration pictures rank first, second, second, third."""
    logits = torch.tensor([[0.5, 0.3, 0.2]]).log().expand(4, 3)
    labels = torch.tensor([0, 1, 1, 2])
    thr = SoftmaxSets("thr").fit(None, logits, labels, 0.4)  # the third smallest of 0.5, 0.7, 0.7, 0.8
    assert thr.predict(None, logits[:1]).tolist() == [[True, True, False]]
    assert thr.predict(None, logits[:1], 0.2).tolist() == [[True, True, True]]
    aps, raps = SoftmaxSets("aps"), SoftmaxSets("raps", penalty=0.1, free=1)
    share = torch.rand(1, generator=torch.Generator().manual_seed(7), dtype=torch.float64)
    reached = aps._scores(logits[:1], 7)[0]
    expected = torch.tensor([0.5, 0.8, 1.0]) - share * torch.tensor([0.5, 0.3, 0.2])
    assert reached.tolist() == pytest.approx(expected.tolist(), abs=1e-6)
    assert (raps._scores(logits[:1], 7)[0] - reached).tolist() == pytest.approx([0.0, 0.1, 0.2], abs=1e-9)


def test_bad_input_is_named():
    vector, logits, labels = drawn(20, torch.Generator().manual_seed(0))
    for alpha in (0.0, 1.0, -0.1, 2.0):
        with pytest.raises(ValueError, match="must lie between 0 and 1"):
            HierarchicalSets(WEIGHT).fit(vector, logits, labels, alpha)
        with pytest.raises(ValueError, match="must lie between 0 and 1"):
            SoftmaxSets().fit(vector, logits, labels, alpha)
    with pytest.raises(ValueError, match="1 calibration pictures are too few"):
        HierarchicalSets(WEIGHT).fit(vector[:1], logits[:1], labels[:1])
    with pytest.raises(ValueError, match="are not those of 5 classes"):
        HierarchicalSets(WEIGHT).fit(vector, logits, labels + 1)
    with pytest.raises(ValueError, match=r"split .='half'. must be one of strict, published"):
        HierarchicalSets.__init__.__wrapped__(HierarchicalSets(WEIGHT), WEIGHT, split="half")
    with pytest.raises(ValueError, match=r"score .='best'. must be one of thr, aps, raps"):
        SoftmaxSets.__init__.__wrapped__(SoftmaxSets(), "best")
    for sets in (HierarchicalSets(WEIGHT), SoftmaxSets()):
        with pytest.raises(ValueError, match="call fit first"):
            sets.predict(vector, logits)
