"""Locality in the picture: features whose place is known."""

import numpy as np
import pytest
import torch
from PIL import Image

from qpm_lib import metrics
from qpm_lib.metrics.locality import marked_patches

GRID, SIDE = 8, 64


def brightness(images):
    return torch.tensor(np.stack([np.asarray(i.convert("L")).reshape(GRID, 8, GRID, 8).mean((1, 3)) for i in images]))


def features(images):
    """0 reads and shows the corner; 1 shows the corner and reads the opposite one; 2 shows a half and reads a fifth of
    it; 3 is always off.
    """
    light = brightness(images) / 255
    corner, other, half = (torch.zeros(GRID, GRID) for _ in range(3))
    corner[:2, :2], other[-2:, -2:], half[:4] = 1, 1, 1
    maps = torch.stack([light * corner, light * corner, light * half, 0 * light], 1)
    vector = [(light * where).sum((1, 2)) for where in (corner, other)]
    vector += [(light * half).sum((1, 2)) + 0.5 * (light * (1 - half)).sum((1, 2)), torch.zeros(len(images))]
    return maps.float(), torch.stack(vector, 1).float()


@pytest.fixture
def pictures():
    rng = np.random.default_rng(0)
    return [Image.fromarray(rng.integers(150, 255, (SIDE, SIDE, 3), dtype=np.uint8)) for _ in range(6)]


def test_a_feature_that_reads_where_it_shows_is_local_and_one_that_reads_elsewhere_is_not(pictures):
    black = [Image.new("RGB", (SIDE, SIDE))] * len(pictures)
    found = metrics.feature_locality(features, pictures, [range(4)] * len(pictures), black, n_random=20)
    # maps mark the fewest patches that hold 80 % of them: four of four, and about 26 of 32
    assert found.kept[0] == found.lost[0] == pytest.approx(1.0)
    assert found.kept[1] == pytest.approx(0.0)
    assert found.lost[1] == pytest.approx(0.0)
    assert 0.4 < found.kept[2] < 0.7
    assert found.kept_random[0] < 0.2
    assert found.area[0] == pytest.approx(4 / 64)
    assert found.pictures.tolist() == [6, 6, 6, 0]
    assert np.isnan(found.kept[3])
    assert found.means["kept"] == pytest.approx(np.nanmean(found.kept))
    assert found.means["pictures"] == pytest.approx(found.pictures[found.pictures > 0].mean())
    only = [metrics.feature_locality(features, pictures, [[f]] * 6, black).skill for f in (1, 2, 0)]
    assert only[0] < 0.05 < only[1] < 0.9 < only[2] == pytest.approx(1.0)
    again = metrics.feature_locality(features, pictures, [range(4)] * 6, black, n_random=20)
    for first, second in zip(found, again, strict=True):
        np.testing.assert_array_equal(first, second)


def test_pictures_are_blurred_where_no_fill_is_given(pictures):
    assert np.asarray(metrics.blurred(pictures[0])).std() < 0.2 * np.asarray(pictures[0]).std()
    found = metrics.feature_locality(
        lambda images: features([i.point(lambda v: v**2 // 255) for i in images]), pictures, [[0]] * 6
    )
    assert found.pictures[0] > 0


def test_marked_patches_are_the_fewest_that_hold_the_share():
    maps = np.array([[[5.0, 3.0], [1.0, 1.0]], [[-1.0, -2.0], [0.0, -3.0]], [[0.0, 0.0], [4.0, -9.0]]])
    np.testing.assert_array_equal(marked_patches(maps, 0.8)[0], [[True, True], [False, False]])
    assert not marked_patches(maps)[1].any()
    np.testing.assert_array_equal(marked_patches(maps)[2], [[False, False], [True, False]])


def test_bad_input_is_named(pictures):
    with pytest.raises(ValueError, match="6 pictures, 2 lists of features and 6 fills"):
        metrics.feature_locality(features, pictures, [[0]] * 2)
    with pytest.raises(ValueError, match="0 pictures"):
        metrics.feature_locality(features, [], [])
    with pytest.raises(ValueError, match=r"fill of \(8, 8\)"):
        metrics.feature_locality(features, pictures[:1], [[0]], [Image.new("RGB", (8, 8))])


def test_one_feature_that_hardly_loses_anything_elsewhere_does_not_decide_the_skill():
    kept, random = np.array([0.5, 0.5, 1.3]), np.array([0.1, 0.1, 0.99])
    rest = [np.ones(3)] * 2
    found = metrics.Locality(kept, rest[0], random, rest[1], rest[0], np.array([4, 4, 4]))
    assert found.skill == pytest.approx((kept.mean() - random.mean()) / (1 - random.mean()))
    assert found.skill < 1
    nothing = found._replace(pictures=np.zeros(3, int))
    assert np.isnan(nothing.skill)
