"""What features answer to: features that were planted."""

import numpy as np
import pytest
import torch

from qpm_lib import metrics
from qpm_lib.data.toy.bird import PARTS
from qpm_lib.data.toy.render import render


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
    assert purity.on_part[0] <= purity.on_part_ceiling[0] + 0.05
    assert (purity.purity_random[:2] < 0.2).all()
    assert 0.25 < purity.purity_skill < 0.5  # one of three features is pure
    assert purity.explained.shape == (3, sum(map(len, FACTORS.values())))
    with pytest.raises(ValueError, match=r"n_birds .=5. must be at least 10"):
        metrics.feature_purity(features, n_birds=5)
