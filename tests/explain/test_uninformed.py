"""Maps without any idea: what they are, and that measures see them as such."""

import numpy as np
import pytest
import torch
from PIL import Image

from qpm_lib.explain.uninformed import CentredBlob, EdgeMap, RandomMap

GRID = 16


def pictures(count):
    rng = np.random.default_rng(0)
    return [Image.fromarray(rng.integers(0, 255, (20, 20, 3), dtype=np.uint8)) for _ in range(count)]


def test_random_maps_differ_by_picture_class_and_seed_and_come_again(target):
    [image, other], label = pictures(2), torch.tensor([1])
    first = RandomMap(target)([image], label)
    assert torch.equal(first, RandomMap(target)([image], label))
    for changed in (
        RandomMap(target)([other], label),
        RandomMap(target)([image], label + 1),
        RandomMap(target, seed=1)([image], label),
    ):
        assert abs(np.corrcoef(first.flatten(), changed.flatten())[0, 1]) < 0.25
    assert abs(float(first.mean()) - 0.5) < 0.1
    assert 0 <= float(first.min()) < float(first.max()) <= 1


def test_the_blob_is_highest_in_the_centre_and_symmetric(target):
    heat = CentredBlob(target)(pictures(1), torch.tensor([0]))[0]
    torch.testing.assert_close(heat, heat.flip(0).T)
    assert heat[7, 7] == heat.max()
    assert heat[0, 0] < heat[0, 7] < heat[4, 7]
    assert float(heat[7, 11]) == pytest.approx(np.exp(-((0.5 / 16) ** 2 + (3.5 / 16) ** 2) / (2 * 0.25**2)), rel=1e-6)


def test_edges_are_where_the_picture_changes(target):
    picture = np.zeros((128, 128, 3), np.uint8)
    picture[:, 68:] = 255  # an upright edge in the middle of patch column 8
    heat = EdgeMap(target)([Image.fromarray(picture)], torch.tensor([0]))[0]
    assert (heat[:, 8] > 0).all()
    assert (heat[:, :8] == 0).all()
    assert (heat[:, 9:] == 0).all()
    # Sobel answers 4 on both sides of a step of height 1: two of eight columns of the patch, squared
    assert float(heat[5, 8]) == pytest.approx(16 * 2 / 8)
