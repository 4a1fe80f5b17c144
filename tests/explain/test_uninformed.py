"""Maps without any idea: what they are, and that measures see them as such."""

import numpy as np
import pytest
import torch
from PIL import Image

from qpm_lib.explain.base import ExplanationMethod
from qpm_lib.explain.uninformed import CentredBlob, RandomMap


def pictures(count):
    rng = np.random.default_rng(0)
    return [Image.fromarray(rng.integers(0, 255, (20, 20, 3), dtype=np.uint8)) for _ in range(count)]


@pytest.mark.parametrize("method", [RandomMap(6), CentredBlob(6)])
def test_they_follow_the_contract(method):
    assert isinstance(method, ExplanationMethod)
    images, targets = pictures(3), torch.tensor([0, 2, 1])
    maps = method(images, targets)
    assert maps.shape == (3, 6, 6)
    assert ((maps >= 0) & (maps <= 1)).all()
    one_by_one = torch.cat([method([image], target[None]) for image, target in zip(images, targets, strict=True)])
    torch.testing.assert_close(one_by_one, maps, rtol=0, atol=0)


def test_random_maps_differ_by_picture_class_and_seed_and_come_again():
    [image, other], target = pictures(2), torch.tensor([1])
    first = RandomMap(16)([image], target)
    assert torch.equal(first, RandomMap(16)([image], target))
    for changed in (
        RandomMap(16)([other], target),
        RandomMap(16)([image], target + 1),
        RandomMap(16, seed=1)([image], target),
    ):
        assert abs(np.corrcoef(first.flatten(), changed.flatten())[0, 1]) < 0.25
    assert abs(float(first.mean()) - 0.5) < 0.1


def test_the_blob_is_highest_in_the_centre_and_symmetric():
    heat = CentredBlob(7)(pictures(1), torch.tensor([0]))[0]
    assert heat[3, 3] == heat.max() == 1
    torch.testing.assert_close(heat, heat.flip(0).T)
    assert heat[0, 0] < heat[0, 3] < heat[2, 3]
    assert float(heat[3, 5]) == pytest.approx(np.exp(-((2 / 7) ** 2) / (2 * 0.25**2)), rel=1e-6)
