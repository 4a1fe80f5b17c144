"""Parts of rendered pictures on the patch grid."""

import numpy as np
import pytest
import torch

from qpm_lib import metrics
from qpm_lib.data.toy.bird import PARTS
from qpm_lib.data.toy.render import CLUTTER, render
from qpm_lib.data.toy.species import make_species
from qpm_lib.metrics.parts import coverage, paint, read_out


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


def regions(side=32):
    """Five regions of very different areas, two of them within one patch, and the rest."""
    where = np.zeros((6, side, side), bool)
    where[0, 2:20, 3:15], where[1, 5:12, 16:28], where[2, 22:30, 2:6] = True, True, True
    where[3, 24:26, 16:18], where[4, 26:31, 16:19] = True, True
    where[5] = ~where.any(0)
    return where


def test_the_read_out_gives_back_what_was_painted_whatever_the_areas():
    rng = np.random.default_rng(0)
    covered = coverage(regions(), 8)
    np.testing.assert_allclose(covered.sum(0), 1.0)
    values = rng.normal(size=6)
    weights = read_out(covered)
    np.testing.assert_allclose(np.tensordot(weights, paint(values, covered), 2), values, atol=1e-9)
    means = np.tensordot(covered / covered.sum((1, 2), keepdims=True), paint(values, covered), 2)
    assert np.abs(means - values).max() > 0.1  # means over masks mix neighbours
    np.testing.assert_allclose(np.tensordot(weights, np.full((8, 8), 0.7), 2), 0.7)


def test_the_read_out_is_the_least_squares_fit():
    rng = np.random.default_rng(1)
    covered, noise = coverage(regions(), 8), rng.random((8, 8))
    fit, *_ = np.linalg.lstsq(covered.reshape(6, -1).T, noise.ravel(), rcond=None)
    np.testing.assert_allclose(np.tensordot(read_out(covered), noise, 2), fit, atol=1e-9)


def test_coverage_is_the_share_of_area_on_any_grid():
    where, fine = regions(), np.kron(regions(), np.ones((1, 3, 3), bool))  # 96 x 96 divides into 24 patches
    np.testing.assert_allclose(coverage(where, 24), fine.reshape(6, 24, 4, 24, 4).mean((2, 4)), atol=1e-12)
    np.testing.assert_allclose(coverage(where, 8), where.reshape(6, 8, 4, 8, 4).mean((2, 4)), atol=1e-12)
    np.testing.assert_allclose(coverage(where, 5).mean((1, 2)), where.mean((1, 2)))


def test_a_region_that_cannot_be_seen_is_read_as_zero():
    where = regions()
    where[1] = False
    where[5] = ~where[:5].any(0)
    weights = read_out(coverage(where, 8))
    assert not weights[1].any()
