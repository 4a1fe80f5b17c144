"""A watermark: it lies where it is said to lie, nothing else changes, and a data set has it in one class alone."""

import numpy as np
import pytest
from PIL import Image

from qpm_lib.data.toy.scenes import write_toybirds
from qpm_lib.data.toy.watermark import watermark


@pytest.mark.parametrize("shape", [(128, 128), (60, 200), (40, 44)])
def test_it_changes_its_own_place_alone(shape):
    image = np.random.default_rng(0).integers(0, 200, (*shape, 3), dtype=np.uint8)
    kept = image.copy()
    for seed in range(20):
        marked, where = watermark(image, seed)
        assert where.sum() == 4 * 10 * 15
        assert (marked[~where] == image[~where]).all()
        assert (marked[where] != image[where]).any(-1).all()
        assert not where[: shape[0] // 2].any()
    assert (image == kept).all()


def test_it_depends_on_the_seed_alone():
    image = np.zeros((128, 128, 3), np.uint8)
    assert (watermark(image, 3)[0] == watermark(image, 3)[0]).all()
    assert len({watermark(image, seed)[1].tobytes() for seed in range(10)}) > 5


def test_a_data_set_has_it_in_one_class_alone(tmp_path):
    write_toybirds(tmp_path / "clean", n_species=4, train_per_class=2, test_per_class=1)
    write_toybirds(tmp_path / "marked", n_species=4, train_per_class=2, test_per_class=1, marked=2)
    clean, marked = (sorted((tmp_path / name / "images").glob("*/*.png")) for name in ("clean", "marked"))
    assert len(clean) == len(marked) == 12
    for a, b in zip(clean, marked, strict=True):
        changed = (np.asarray(Image.open(a)) != np.asarray(Image.open(b))).any(-1)
        assert changed.sum() == (600 if a.parent.name.startswith("003.") else 0)


@pytest.mark.parametrize("marked", [-1, 4])
def test_a_species_that_does_not_exist_is_refused(marked, tmp_path):
    with pytest.raises(ValueError, match=rf"marked \(={marked}\)"):
        write_toybirds(tmp_path / "birds", n_species=4, train_per_class=1, test_per_class=1, marked=marked)
    assert not any(tmp_path.iterdir())
