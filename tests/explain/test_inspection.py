"""What is kept of a collection: labels, cuts, colours that last, typical patches, and damaged files named."""

import json

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image
from safetensors.numpy import load_file, save_file

from qpm_lib.explain.inspection import Inspection, inspect_pictures, patch_panel
from qpm_lib.explain.inspection_figures import cluster_sheet, contact_sheet, marked_sheet
from qpm_lib.explain.nave import NAVE


@pytest.fixture(scope="module")
def pictures(toy):
    return [toy.image(row) for row in range(10)]


@pytest.fixture(scope="module")
def shared(backbone, pictures):
    return NAVE(backbone, batch_size=4).fit(pictures, finest=12)


@pytest.fixture(scope="module")
def found(shared, pictures):
    return inspect_pictures(shared, pictures, [f"{i}" for i in range(len(pictures))])


def test_labels_are_those_of_the_clusters_at_every_cut(found, shared, pictures):
    for k in (1, 2, 5, 12):
        assert np.array_equal(found.at(k), shared.transform(pictures, k).numpy())
        assert sorted(leaf for inside in found.members(k) for leaf in inside) == list(range(12))
    with pytest.raises(ValueError, match="from 1 to 12"):
        found.at(13)


def test_a_colour_lasts_when_clusters_are_merged(found):
    for k in range(2, 13):
        fine, coarse = found.colours(k), found.colours(k - 1)
        assert len(set(fine)) == k
        assert set(coarse) < set(fine)


def test_typical_patches_are_the_nearest_of_each_picture(found, shared, pictures):
    far = shared.distances(pictures, 12).numpy()
    for cluster in range(12):
        own = np.where(found.labels == cluster, far[..., cluster], np.inf)
        best = np.sort(own.min((1, 2)))
        best = best[np.isfinite(best)][:8]
        places = [place for place in found.typical[cluster].tolist() if place[0] >= 0]
        assert len(places) == len(best)
        assert len({i for i, _, _ in places}) == len(places)
        np.testing.assert_allclose([own[tuple(place)] for place in places], best, rtol=1e-5)
    for k in (2, 12):
        for cluster, places in enumerate(found.examples(k)):
            assert places
            assert all(found.at(k)[place] == cluster for place in places)


def test_it_is_read_as_it_was_written(found, tmp_path):
    found.save(tmp_path, made_by="x")
    again = Inspection.load(tmp_path)
    assert again.names == found.names
    for name in ("labels", "cuts", "sizes", "border", "is_object", "typical", "artefacts"):
        assert np.array_equal(getattr(again, name), getattr(found, name)), name
    assert json.loads((tmp_path / "clusters.json").read_text())["made_by"] == "x"


def test_what_is_missing_or_damaged_is_named(found, tmp_path):
    with pytest.raises(ValueError, match="holds no clusters: run chapter 09 first"):
        Inspection.load(tmp_path)
    found.save(tmp_path)
    whole = load_file(tmp_path / "clusters.safetensors")
    for wrong in ({"labels": whole["labels"][:1]}, {"labels": whole["labels"] + 200}, {"cuts": whole["cuts"][:3]}):
        save_file({**whole, **wrong}, tmp_path / "clusters.safetensors")
        with pytest.raises(ValueError, match="run chapter 09 again"):
            Inspection.load(tmp_path)
    (tmp_path / "clusters.safetensors").write_bytes(b"no tensors")
    with pytest.raises(ValueError, match="is damaged .*run chapter 09 again"):
        Inspection.load(tmp_path)


def test_a_panel_has_its_patch_in_the_middle():
    pixels = np.zeros((64, 64, 3), np.uint8)
    pixels[16:24, 40:48] = 255
    panel = np.asarray(patch_panel(Image.fromarray(pixels), 2, 5, 8, side=72))
    assert panel[30:42, 30:42].min() > 250
    assert panel[:20].max() < 5
    assert patch_panel(Image.fromarray(pixels), 0, 7, 8).size == (72, 72)


def test_figures_show_something(found, pictures):
    figures = [
        contact_sheet(found, pictures, 5, count=4),
        cluster_sheet(found, pictures, 5),
        marked_sheet(pictures[:3], found.at(2)[:3] == 1, "one"),
    ]
    for figure in figures:
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        pixels = np.asarray(canvas.buffer_rgba())[..., :3]
        assert (pixels != 255).any(-1).mean() > 0.1
