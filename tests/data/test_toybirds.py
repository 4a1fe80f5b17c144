import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from qpm_lib.backbones import pretraining
from qpm_lib.backbones.pretraining import PretrainingConfig, PretrainingRenders, patch_parts
from qpm_lib.core.artifacts import file_hash, read_json
from qpm_lib.data.toy.bird import FACTOR_PART, FACTORS, PARTS
from qpm_lib.data.toy.render import render
from qpm_lib.data.toy.species import make_species, random_bird, species_name

TWIG_PIXELS = (
    4  # labels are drawn at picture size, pictures at twice that: a twig can hide a few more pixels in the labels
)


def distance(a, b):
    return sum(x != y for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("seed", [3, 4])
def test_species_are_twins_that_differ_in_one_part(seed):
    species = make_species(24, seed)
    assert len(set(species)) == 24
    for i, a in enumerate(species):
        for j, b in enumerate(species[:i]):
            assert distance(a, b) == 1 if i // 2 == j // 2 else distance(a, b) >= 4


def test_twins_never_differ_in_something_invisible():
    for a, b in zip(make_species(48)[::2], make_species(48)[1::2], strict=True):
        factor = next(f for f in FACTORS if getattr(a, f) != getattr(b, f))
        assert factor != "crown_colour" or "none" not in (a.crown, b.crown)


def test_colours_are_dealt_out_evenly():
    species = make_species(24)
    for factor in ("base_colour", "breast_colour"):
        counts = [sum(getattr(s, factor) == v for s in species) for v in FACTORS[factor]]
        assert max(counts) - min(counts) <= 2


@pytest.mark.parametrize("number", [1, 7, 50, 0])
def test_species_come_in_pairs(number):
    with pytest.raises(ValueError, match=f"={number}"):
        make_species(number)


def test_species_names_are_readable():
    assert species_name(make_species()[0]) == "Brown_White_Streaks_Peak_Long"


def test_the_same_seed_gives_the_same_picture():
    bird = make_species()[0]
    one, two, other = render(bird, 5), render(bird, 5), render(bird, 6)
    np.testing.assert_array_equal(one.image, two.image)
    assert (one.image != other.image).mean() > 0.5


def test_pictures_are_the_same_on_every_machine():
    """Means over 16 x 16 blocks, recorded once: they do not depend on the last bit of a sine or the version of a
    library.
    """
    image = render(make_species()[5], 123).image
    blocks = np.asarray(Image.fromarray(image).resize((4, 4), Image.Resampling.BOX), int).sum(2)
    np.testing.assert_allclose(blocks, GOLDEN_BLOCKS, atol=3)


def outline(bird, seed, part):
    """Pixels within two of a part's outline, whether or not another part covers it."""
    alone = render(bird, seed, without=[p for p in PARTS[1:] if p != part]).parts == PARTS.index(part)
    near = np.zeros_like(alone)
    for y, x in np.argwhere(alone | (render(bird, seed).parts == PARTS.index(part))):
        near[max(0, y - 2) : y + 3, max(0, x - 2) : x + 3] = True
    return near


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), part=st.sampled_from(PARTS[1:]))
def test_removing_a_part_changes_only_its_pixels(seed, part):
    bird = random_bird(np.random.default_rng(seed))
    whole, without = render(bird, seed), render(bird, seed, without=[part])
    assert PARTS.index(part) not in without.parts
    assert ((whole.image != without.image).any(-1) & ~outline(bird, seed, part)).sum() <= TWIG_PIXELS


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    factor=st.sampled_from([f for f in FACTORS if f != "base_colour"]),
    choice=st.integers(0, 4),
)
def test_another_variant_changes_only_its_part(seed, factor, choice):
    bird = random_bird(np.random.default_rng(seed))
    other = bird._replace(**{factor: FACTORS[factor][choice % len(FACTORS[factor])]})
    touched = (render(bird, seed).image != render(other, seed).image).any(-1)
    assert touched.any() <= (bird != other)
    part = FACTOR_PART[factor]
    assert (touched & ~outline(bird, seed, part) & ~outline(other, seed, part)).sum() <= TWIG_PIXELS


def test_unknown_parts_and_variants_are_named():
    bird = make_species()[0]
    with pytest.raises(ValueError, match="antlers"):
        render(bird, 0, without=["antlers"])
    with pytest.raises(ValueError, match="beak.*trumpet.*cone"):
        render(bird._replace(beak="trumpet"), 0)


def test_pretraining_never_sees_a_species():
    renders = PretrainingRenders(PretrainingConfig(steps=2), 0)
    assert set(make_species()) <= renders.species
    sample = renders[3]
    np.testing.assert_array_equal(sample.image, PretrainingRenders(PretrainingConfig(steps=2), 0)[3].image)
    assert sample.patch_part.shape == (256,)
    assert sample.factors.min() >= -1


def test_resumed_pretraining_continues_with_the_next_pictures():
    config = PretrainingConfig(steps=3, batch_size=4)
    np.testing.assert_array_equal(PretrainingRenders(config, 1)[0].image, PretrainingRenders(config, 0)[4].image)
    assert len(PretrainingRenders(config, 1)) == 8


def test_stopped_pretraining_goes_on_to_the_same_weights(tmp_path, monkeypatch):
    config = PretrainingConfig(steps=4, batch_size=2, kept_patches=16)
    monkeypatch.setattr(pretraining, "_CHECKPOINT_EVERY", 2)
    straight = pretraining.pretrain(config, tmp_path / "straight", workers=0)
    step = pretraining._train_step

    def stopped(*args):
        if args[5] == 3:
            raise KeyboardInterrupt
        return step(*args)

    monkeypatch.setattr(pretraining, "_train_step", stopped)
    with pytest.raises(KeyboardInterrupt):
        pretraining.pretrain(config, tmp_path / "stopped", workers=0)
    assert [p.name for p in (tmp_path / "stopped").iterdir()] == ["checkpoint.pt"]
    with pytest.raises(ValueError, match="belongs to another recipe"):
        pretraining.pretrain(PretrainingConfig(steps=5, batch_size=2), tmp_path / "stopped", workers=0)
    monkeypatch.setattr(pretraining, "_train_step", step)
    resumed = pretraining.pretrain(config, tmp_path / "stopped", workers=0)
    assert file_hash(resumed) == file_hash(straight) == read_json(resumed.with_suffix(".json"))["sha256"]
    assert not (tmp_path / "stopped" / "checkpoint.pt").exists()


def test_a_patch_shows_its_largest_part_and_small_parts_count_twice():
    parts = np.zeros((16, 16), np.uint8)
    parts[:8, :8] = PARTS.index("body")
    parts[8:, :8] = PARTS.index("head")
    parts[8:12, :5] = parts[12:15, :5] = PARTS.index("eye")
    assert [PARTS[p] for p in patch_parts(parts)] == ["body", "background", "eye", "background"]


def test_histograms_of_twins_overlap():
    """Two pictures of one species differ more in colour than twins in the same scene do."""
    a, b = make_species()[:2]
    same_scene = [np.abs(render(a, s).image.mean((0, 1)) - render(b, s).image.mean((0, 1))).sum() for s in range(8)]
    same_bird = [
        np.abs(render(a, s).image.mean((0, 1)) - render(a, s + 100).image.mean((0, 1))).sum() for s in range(8)
    ]
    assert np.mean(same_scene) < 0.2 * np.mean(same_bird)


GOLDEN_BLOCKS = [[369, 327, 340, 438], [361, 358, 352, 453], [348, 319, 387, 442], [419, 468, 466, 497]]
