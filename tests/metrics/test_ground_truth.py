"""The checks against rendered truth: planted maps, from worthless to perfect, must be ordered rightly by each check."""

import itertools

import numpy as np
import pytest
import torch

from qpm_lib import metrics
from qpm_lib.data.toy.bird import FACTOR_PART
from qpm_lib.data.toy.scenes import load_scenes
from qpm_lib.explain import CentredBlob, RandomMap
from qpm_lib.metrics.agreement import decisive_part, focus, rank_agreement
from qpm_lib.metrics.exact_answers import SUBSETS, ExactParts
from qpm_lib.metrics.ground_truth import twin
from qpm_lib.metrics.parts import VARIED, paint

GRID = 16


@pytest.fixture(scope="module")
def truths(toy):
    """What is true of a planted model, in which every part adds a number of its own to the score of each class."""
    rng, scenes = np.random.default_rng(3), load_scenes(toy.root)
    held = (np.arange(SUBSETS)[:, None] >> np.arange(len(VARIED))) & 1
    logits = np.empty((len(toy.test_rows), SUBSETS, 4), np.float32)
    for i, row in enumerate(toy.test_rows):
        label = int(toy.labels[row])
        other, part = twin(scenes.species, label)
        worth = rng.normal(0, 0.3, (len(VARIED), 4))
        worth[:, label] += rng.permutation([0.0, 0.0, 0.0, 0.01, 1.0, 1.2, 1.5, 2.0])
        worth[:, other] = worth[:, label] + rng.normal(0, 0.02, len(VARIED))
        worth[VARIED.index(part), other] -= 1.5
        logits[i] = held @ worth
    exact = ExactParts(np.array(toy.test_rows), logits, logits[:, -1] - 0.001)
    return metrics.picture_truths(exact, toy, scenes, GRID)


def planted(truths, quality, *, seed=0, answer="value"):
    """An explanation that knows the truth: the exact map mixed with noise, or another answer painted."""
    known = {truth.image.tobytes(): truth for truth in truths}
    rng = np.random.default_rng(seed)

    def explain(images, targets):
        return torch.stack([one(known[i.tobytes()], int(t)) for i, t in zip(images, targets, strict=True)])

    def one(truth, target):
        maps, area = rng.standard_normal((GRID, GRID)), truth.area[:-1].clip(1)
        value = truth.value if target == truth.target else truth.value - truth.lead
        shown = {"value": value / area, "area": area, "bird": np.ones(len(area)), "small": 1 / area}[answer]
        exact = paint(shown, truth.covered[: len(shown)])
        return torch.tensor(quality * exact / exact.std() + (1 - quality) * maps)

    return explain


def skills(explain, truths):
    checks = metrics.part_checks(explain, truths, n_random=50)
    return {check: checks.skill(check) for check in metrics.CHECKS}


def test_maps_from_random_to_perfect_are_in_order_in_every_check(truths):
    steps = (0.0, 0.1, 0.25, 0.5, 1.0)
    found = []
    for quality in steps:
        runs = [skills(planted(truths, quality, seed=seed), truths) for seed in range(4)]
        found.append({check: np.mean([run[check].value for run in runs]) for check in metrics.CHECKS})
    for check in metrics.CHECKS:
        values = [step[check] for step in found]
        assert all(later > earlier for earlier, later in itertools.pairwise(values)), (check, values)
        assert abs(values[0]) < 0.2, (check, values)
        assert values[-1] > 0.6, (check, values)
    assert found[-1]["correctness"] == found[-1]["contrastivity"] == pytest.approx(1.0)


def test_the_best_map_has_skill_one_and_the_mean_of_random_maps_zero(truths):
    checks = metrics.part_checks(planted(truths, 1.0), truths, n_random=50)
    for name, skill in (("ceiling", 1.0), ("random", 0.0)):
        given = metrics.PartChecks(getattr(checks, name), checks.random, checks.ceiling)
        for check in metrics.CHECKS:
            found = given.skill(check)
            assert found.value == found.low == found.high == pytest.approx(skill)
    for check in metrics.CHECKS:
        np.testing.assert_allclose(checks.ceiling[check][np.isfinite(checks.ceiling[check])], 1.0)


@pytest.mark.parametrize("answer", ["area", "bird", "small"])
def test_maps_that_know_only_the_areas_of_parts_have_no_skill(truths, answer):
    found = skills(planted(truths, 1.0, answer=answer), truths)
    assert found["correctness"].score == pytest.approx(0.0)
    assert abs(found["contrastivity"].value) < 0.25  # the same map for both classes
    assert found["distractibility"].value < 0.6  # clutter is no part


def test_maps_without_any_idea_have_no_skill(truths, target):
    for explain in (RandomMap(target), CentredBlob(target)):
        found = skills(explain, truths)
        for check in ("correctness", "contrastivity"):
            assert abs(found[check].value) < 0.35, (check, found[check])
    uniform = skills(lambda images, _: torch.ones(len(images), GRID, GRID), truths)
    assert uniform["correctness"].score == 0.0
    assert uniform["distractibility"].score == pytest.approx(0.0)


def test_skills_come_with_intervals_and_can_be_repeated(truths):
    explain = planted(truths, 0.3)
    first, again = (skills(planted(truths, 0.3), truths) for _ in range(2))
    assert first == again
    for found in first.values():
        assert found.low < found.value < found.high
        assert 1 <= found.pictures <= len(truths)
    with pytest.raises(ValueError, match="unknown check 'plausibility'"):
        metrics.part_checks(explain, truths).skill("plausibility")


def test_a_check_that_no_picture_allows_is_none(truths):
    alone = [truth._replace(rival=None, lead=None, matters=np.ones(9, int)) for truth in truths]
    found = skills(planted(truths, 0.5), alone)
    assert found["contrastivity"] is None
    assert found["distractibility"] is None
    assert found["correctness"] is not None


def test_bad_input_is_named(truths, target):
    with pytest.raises(ValueError, match="at least one row"):
        metrics.part_checks(RandomMap(target), [])
    with pytest.raises(ValueError, match=r"\([12], 8, 8\), not \([12], 16, 16\)"):
        metrics.part_checks(lambda images, _: torch.ones(len(images), 8, 8), truths)


def test_a_picture_is_explained_for_its_class_and_its_twin_at_once(truths):
    asked = []

    def explain(images, targets):
        asked.append((len(images), len({id(image) for image in images}), targets.tolist()))
        return torch.ones(len(images), GRID, GRID)

    metrics.part_checks(explain, truths)
    assert asked == [(1, 1, [t.target]) if t.rival is None else (2, 1, [t.target, t.rival]) for t in truths]


def test_twins_differ_in_one_part(toy):
    species = load_scenes(toy.root).species
    for label, bird in enumerate(species):
        other, part = twin(species, label)
        differs = {FACTOR_PART[f] for f in bird._fields if getattr(bird, f) != getattr(species[other], f)}
        assert differs == {part}
        assert twin(species, other) == (label, part)


def test_rank_agreement_is_a_partial_correlation_and_zero_where_nothing_is_said():
    from scipy.stats import rankdata

    rng = np.random.default_rng(6)
    said, true, area = rng.normal(size=(4, 8)).round(1), rng.normal(size=8).round(1), rng.uniform(1, 9, 8)
    for row, found in zip(said, rank_agreement(said, true, area), strict=True):
        x, y, z = (rankdata(v) for v in (row, true, area))
        x, y = (v - np.polyval(np.polyfit(z, v, 1), z) for v in (x, y))  # what area does not explain
        assert found == pytest.approx(np.corrcoef(x, y)[0, 1])
    np.testing.assert_allclose(rank_agreement(true[None], true, area), 1.0)
    np.testing.assert_array_equal(rank_agreement(np.stack([np.ones(8), area, -area]), true, area), 0.0)


def test_the_decisive_part_is_worth_one_and_ties_share():
    true = np.array([-1.0, 0.5, 2.0])
    said = np.array([[0.0, 0.1, 0.9], [0.0, 3.0, 1.0], [5.0, 0.0, 0.0], [1.0, 1.0, 1.0]])
    np.testing.assert_allclose(decisive_part(said, true), [1.0, 0.25, -0.5, 0.25])


def test_focus_is_one_on_what_matters_and_minus_one_on_the_rest():
    area, matters = np.array([10.0, 90.0, 40.0]), np.array([True, True, False])
    strength = np.array([[1.0, 0.0, 0.0], [0.0, 0.0, 2.0], [3.0, 3.0, 3.0], [0.0, 0.0, 0.0], [1.0, 1.0, -0.1]])
    np.testing.assert_allclose(focus(strength, area, matters), [1.0, -1.0, 0.0, 0.0, 1.0])
