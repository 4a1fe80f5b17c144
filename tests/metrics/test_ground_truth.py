"""Checks against rendered truth: explanations with known answers, and features that were planted."""

import numpy as np
import pytest
import torch
from PIL import Image

from qpm_lib import metrics
from qpm_lib.data.toy.bird import FACTOR_PART, PARTS
from qpm_lib.data.toy.render import CLUTTER, render
from qpm_lib.data.toy.scenes import load_scenes
from qpm_lib.data.toy.species import make_species
from qpm_lib.metrics.ground_truth import VARIED, sufficient_parts, twin


def test_clutter_can_be_left_out_and_the_bird_stays():
    bird = make_species(4, 3)[0]
    whole, bare = render(bird, 17), render(bird, 17, without=(CLUTTER,))
    np.testing.assert_array_equal(whole.parts, bare.parts)
    assert (whole.image != bare.image)[whole.parts == 0].mean() > 0.02
    inside = np.stack(
        [np.roll(whole.parts > 0, shift, (0, 1)) for shift in ((0, 0), (0, 1), (1, 0), (0, -1), (-1, 0))]
    ).all(0)
    assert not (whole.image != bare.image)[inside].any()  # at the outline, pixels mix with the background


def test_importance_is_the_share_of_the_map_on_a_part():
    parts = np.zeros((1, 32, 32), np.uint8)
    parts[0, :16, :16], parts[0, 24:, 24:] = PARTS.index("beak"), PARTS.index("tail")
    maps = torch.zeros(1, 2, 4, 4)
    maps[0, 0, 0, 0] = 3.0
    maps[0, 1] = 1.0
    share = metrics.part_importance(maps, parts, dilate=0)
    assert share.shape == (1, 2, len(PARTS) - 1)
    assert share[0, 0, PARTS.index("beak") - 1] == pytest.approx(1.0)
    assert share[0, 0, PARTS.index("tail") - 1] == 0.0
    assert share[0, 1, PARTS.index("beak") - 1] == pytest.approx(0.25)
    assert metrics.part_importance(maps, parts)[0, 1, PARTS.index("beak") - 1] == pytest.approx(20 * 20 / 1024)


def test_signed_maps_count_with_their_positive_part_and_empty_maps_not_at_all():
    parts = np.zeros((1, 8, 8), np.uint8)
    parts[0, :4, :4] = 1
    maps = torch.full((1, 1, 2, 2), -1.0)
    maps[0, 0, 0, 0] = 0.5
    share = metrics.part_importance(maps, parts, dilate=0)[0, 0, 0]
    assert share > 0.5
    assert not metrics.part_importance(torch.zeros(1, 1, 2, 2), parts).any()
    assert np.isfinite(metrics.part_importance(-torch.ones(1, 1, 2, 2), parts)).all()


def test_sufficient_sets_tell_a_species_from_all_others():
    species = make_species(24, 3)
    for label in (0, 5, 11):
        sets = sufficient_parts(species, label)
        assert sets

        def look(bird, parts):
            return tuple(getattr(bird, f) for f, where in FACTOR_PART.items() if where in parts)

        for chosen in sets:
            alike = [c for c, bird in enumerate(species) if look(bird, chosen) == look(species[label], chosen)]
            assert alike == [label]
            for part in chosen:
                fewer = chosen - {part}
                assert sum(look(bird, fewer) == look(species[label], fewer) for bird in species) > 1
        other = twin(species, label)
        assert other is not None
        assert all(other[1] in chosen for chosen in sets)
        assert twin(species, other[0]) == (label, other[1])


class Oracle:
    """A classifier that reads the label off one part only, and two explanations of it: the truth, and its opposite."""

    def __init__(self, toy):
        self.toy, self.scenes = toy, load_scenes(toy.root)
        self.rows = toy.test_rows
        self.species = self.scenes.species
        self.versions = {}
        for row in self.rows:
            for without in [(), (CLUTTER,), *((p,) for p in VARIED)]:
                key = np.asarray(self.scenes.render(toy, int(row), without=without).image).tobytes()
                self.versions.setdefault(key, (int(row), without))

    def part_of(self, row):
        return twin(self.species, int(self.toy.labels[row]))[1]

    def classify(self, images):
        logits = torch.zeros(len(images), len(self.species))
        for i, image in enumerate(images):
            row, without = self.versions.get(np.asarray(image).tobytes(), (None, ()))
            if row is not None:
                logits[i, self.toy.labels[row]] = 0.0 if self.part_of(row) in without else 10.0
            else:
                logits[i, -1] = 1.0
        return logits

    def explain(self, images, targets, wrong=False):
        maps = []
        for image, target in zip(images, targets, strict=True):
            row, _ = self.versions[np.asarray(image).tobytes()]
            parts = self.scenes.render(self.toy, row).parts
            own = int(target) == int(self.toy.labels[row])
            on_part = parts == PARTS.index(self.part_of(row))
            inside = (on_part if own != wrong else (parts > 0) & ~on_part).astype(np.float32)
            maps.append(np.asarray(Image.fromarray(inside).resize((32, 32), Image.Resampling.BOX)))
        return torch.tensor(np.stack(maps))


def test_a_true_explanation_scores_high_and_its_opposite_low(toy):
    oracle = Oracle(toy)
    rows = np.array(
        [r for r in oracle.rows if (oracle.scenes.render(toy, int(r)).parts == PARTS.index(oracle.part_of(r))).any()]
    )
    good = metrics.part_checks(oracle.explain, oracle.classify, toy, oracle.scenes, rows)
    bad = metrics.part_checks(
        lambda images, t: oracle.explain(images, t, wrong=True), oracle.classify, toy, oracle.scenes, rows
    )
    assert good.pictures == bad.pictures == len(rows)
    assert good.contrastivity == 1.0
    assert bad.contrastivity == 0.0
    assert good.correctness > 0.7 > bad.correctness + 0.2
    assert good.distractibility > bad.distractibility
    assert good.deletion == 1.0
    assert 0.1 < good.contrastivity_chance < 0.2
    assert metrics.part_checks(oracle.explain, oracle.classify, toy, oracle.scenes, rows) == good


def test_a_remembered_classifier_answers_each_picture_once(toy):
    oracle, asked = Oracle(toy), []

    def classify(images):
        asked.extend(images)
        return oracle.classify(images)

    answer = metrics.remembered(classify)
    images = [toy.image(int(row)) for row in (0, 1, 0)]
    torch.testing.assert_close(answer(images), oracle.classify(images))
    torch.testing.assert_close(answer(images[::-1]), oracle.classify(images[::-1]))
    assert len(asked) == 2
    plain = metrics.part_checks(oracle.explain, oracle.classify, toy, oracle.scenes, oracle.rows)
    assert metrics.part_checks(oracle.explain, answer, toy, oracle.scenes, oracle.rows) == plain


def test_wrong_predictions_are_left_out_and_nothing_is_refused(toy):
    oracle = Oracle(toy)
    always_last = metrics.part_checks(
        oracle.explain,
        lambda images: torch.eye(len(oracle.species))[[-1] * len(images)],
        toy,
        oracle.scenes,
        oracle.rows[:3],
    )
    assert always_last.pictures == 0
    assert always_last.completeness is None
    with pytest.raises(ValueError, match="at least one row"):
        metrics.part_checks(oracle.explain, oracle.classify, toy, oracle.scenes, oracle.rows[:0])


def test_purity_finds_what_was_planted():
    """Feature 0 answers to dark pixels of the tail region being there; feature 1 is noise; feature 2 is constant."""
    from qpm_lib.data.toy.bird import FACTORS
    from qpm_lib.data.toy.species import random_bird

    rng = np.random.default_rng([0, 53])
    birds = [random_bird(rng) for _ in range(120)]
    scenes = rng.integers(2**31, 2**32, 120)
    known = {
        render(b, int(s)).image.tobytes(): (b, render(b, int(s)).parts) for b, s in zip(birds, scenes, strict=True)
    }
    noise = np.random.default_rng(1)

    def features(images):
        maps, vector = torch.zeros(len(images), 3, 16, 16), torch.zeros(len(images), 3)
        for i, image in enumerate(images):
            bird, parts = known[np.asarray(image).tobytes()]
            tail = (parts == PARTS.index("tail")).reshape(16, 8, 16, 8).any((1, 3))
            maps[i, 0] = torch.tensor(tail.astype(np.float32))
            vector[i] = torch.tensor([float(bird.tail == "fan"), noise.normal(), 1.0])
        return maps, vector

    purity = metrics.feature_purity(features, n_birds=120, seed=0)
    assert purity.attributes[purity.best[0]] == "tail::fan"
    assert purity.purity[0] == pytest.approx(1.0)
    assert purity.purity[1] < 0.2
    assert purity.purity[2] == 0.0
    assert purity.on_part[0] > 0.6 > purity.part_area[0]
    assert purity.explained.shape == (3, sum(map(len, FACTORS.values())))
    with pytest.raises(ValueError, match=r"n_birds .=5. must be at least 10"):
        metrics.feature_purity(features, n_birds=5)
