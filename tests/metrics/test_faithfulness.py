"""Curves and checks without truth: against loops, closed forms, and a model whose reasons are planted."""

import copy

import numpy as np
import pytest
import torch
from PIL import Image

from qpm_lib import metrics
from qpm_lib.explain.registry import make
from qpm_lib.explain.target import Target
from qpm_lib.metrics.removal import imputed, patch_order
from qpm_lib.metrics.sanity import structural_similarity

GRID = 16


@pytest.fixture(scope="module")
def images(toy):
    return [toy.image(0), toy.image(20)]


@pytest.fixture(scope="module")
def maps():
    return torch.rand(2, GRID, GRID, generator=torch.Generator().manual_seed(0))


LABELS = torch.tensor([1, 3])


def test_patches_are_ordered_by_value_and_ties_by_one_random_order():
    assert patch_order(torch.tensor([[[0.1, 3.0], [-2.0, 0.5]]]))[0].tolist() == [1, 3, 0, 2]
    flat = torch.zeros(2, 4, 4)
    flat[:, 2, 2] = 1
    first, second = patch_order(flat)
    assert first[0] == 10
    assert torch.equal(first, second)
    assert first[1:].tolist() != sorted(first[1:].tolist())
    assert not torch.equal(first, patch_order(flat, seed=1)[0])
    with pytest.raises(ValueError, match="1 values of the maps are not finite"):
        patch_order(torch.tensor([[[float("nan")]]]))


@pytest.mark.parametrize("least_first", [False, True])
@pytest.mark.parametrize("fill", ["mean", "blur", "black"])
def test_curves_are_those_of_pictures_with_holes(fill, least_first, target, images, maps):
    found = metrics.removal_curves(target, images, maps, LABELS, fill=fill, steps=5, least_first=least_first)
    assert found.removed.tolist() == [0, 0.25, 0.5, 0.75, 1]
    order = maps.flatten(1).argsort(1, descending=not least_first)
    for i, image in enumerate(images):
        whole = target.pixels([image])[0]
        fills = {"mean": whole.mean((1, 2), keepdim=True), "black": target.pixels([Image.new("RGB", (8, 8))])[0]}
        fills["blur"] = target.pixels([metrics.blurred(target.backbone.square(image))])[0]
        for step, count in enumerate((0, 64, 128, 192, 256)):
            version = whole.clone()
            for patch in order[i, :count].tolist():
                y, x = (8 * part for part in divmod(patch, GRID))
                hole = fills[fill].expand_as(whole)[:, y : y + 8, x : x + 8]
                version[:, y : y + 8, x : x + 8] = hole
            with torch.no_grad():
                logits = target(version[None])[0]
            assert found.logits[i, step] == pytest.approx(float(logits[LABELS[i]]), rel=1e-3, abs=1e-3)
            expected = float(logits.softmax(0)[LABELS[i]])
            assert found.probabilities[i, step] == pytest.approx(expected, rel=1e-3, abs=1e-3)


def test_tokens_can_be_deleted_instead(target, images, maps):
    found = metrics.removal_curves(target, images, maps, LABELS, fill="tokens", steps=5)
    assert found.removed[-1] == 255 / 256  # one patch stays
    network, order = target.backbone.network, maps.flatten(1).argsort(1, descending=True)
    with torch.no_grad():
        x = network.norm_pre(network._pos_embed(network.patch_embed(target.pixels(images))))
        kept = order[0, 128:].sort().values
        left = network.norm(network.blocks(torch.cat([x[:1, :5], x[:1, 5:][:, kept]], 1)))
        vector = target.model.adapter(left[:, 5:]).mean(1)
        assert found.logits[0, 2] == pytest.approx(float(target.model.head(vector)[0, 1]), rel=1e-3, abs=1e-4)


def test_areas_are_those_of_trapezia():
    curves = metrics.Curves(np.array([0, 0.5, 1.0]), np.array([[2.0, 1.0, 0.0]]), np.array([[1.0, 0.5, 0.2]]))
    assert curves.area().tolist() == pytest.approx([0.375 + 0.175])
    assert curves.area("logits").tolist() == pytest.approx([1.0])


def test_imputed_pixels_are_means_of_their_neighbours():
    rng = np.random.default_rng(0)
    picture = torch.tensor(rng.random((3, 12, 12)))
    gone = torch.zeros(12, 12, dtype=torch.bool)
    gone[3:8, 0:6] = True
    gone[10:, 10:] = True
    found = imputed(picture, gone).numpy()
    assert np.array_equal(found[:, ~gone.numpy()], picture.numpy()[:, ~gone.numpy()])
    noise = np.random.default_rng(0).normal(0, 0.01, (int(gone.sum()), 3)).T
    clean = found.copy()
    clean[:, gone.numpy()] -= noise
    for y, x in zip(*np.nonzero(gone.numpy()), strict=True):
        total, weights = np.zeros(3), 0.0
        for dy in (-1, 0, 1):
            for dx in (-1, 0, 1):
                if (dy or dx) and 0 <= y + dy < 12 and 0 <= x + dx < 12:
                    weight = 1 / 12 if dy and dx else 1 / 6
                    total, weights = total + weight * clean[:, y + dy, x + dx], weights + weight
        np.testing.assert_allclose(clean[:, y, x], total / weights, atol=1e-10)
    everything = imputed(picture, torch.ones(12, 12, dtype=torch.bool))
    torch.testing.assert_close(everything, picture.mean((1, 2), keepdim=True).expand(3, 12, 12))
    assert imputed(picture, ~torch.ones(12, 12, dtype=torch.bool)) is picture


def test_road_is_one_of_the_fills(target, images, maps):
    found = metrics.removal_curves(target, images[:1], maps[:1], LABELS[:1], fill="road", steps=3)
    assert np.isfinite(found.logits).all()
    assert len(set(found.logits[0])) == 3


def test_every_check_orders_planted_maps_from_worthless_to_perfect(rigged, bright_models):
    """Patches do not see each other here, so that what each is worth can be measured by taking it away."""
    backbone = copy.deepcopy(rigged)
    for block in backbone.network.blocks:
        block.attn.proj.weight.data.zero_()
    target, rng = Target(bright_models["qpm"], backbone), np.random.default_rng(2)
    shades = rng.integers(0, 255, (12, 4, 4), dtype=np.uint8)
    images = [Image.fromarray(np.kron(one, np.ones((8, 8), np.uint8))).convert("RGB") for one in shades]
    labels, worth = torch.zeros(12, dtype=torch.long), torch.zeros(12, 4, 4)
    pixels = target.pixels(images)
    for y, x in np.ndindex(4, 4):
        hole = pixels.clone()
        hole[:, :, 8 * y : 8 * y + 8, 8 * x : 8 * x + 8] = pixels.mean((2, 3), keepdim=True)
        worth[:, y, x] = (target(pixels) - target(hole))[:, 0].detach()
    noise = torch.randn(4, 12, 4, 4, generator=torch.Generator().manual_seed(3)) * worth.std()
    effects, scores = metrics.box_effects(target, images, n=60), {}
    for quality in (-1.0, -0.5, 0.0, 0.5, 1.0):
        runs = [quality * worth + (1 - abs(quality)) * one for one in noise]
        given = [(target, images, m, labels) for m in runs]
        row = {"gap": [metrics.curve_gap(*g, steps=9) for g in given]}
        row |= {
            f"gap, {fill}": [metrics.curve_gap(*g, steps=9, fill=fill) for g in given] for fill in ("tokens", "road")
        }
        row |= {"deletion": [-metrics.deletion(*g, steps=9) for g in given]}
        row |= {"insertion": [metrics.insertion(*g, steps=9) for g in given]}
        row |= {"boxes": [metrics.box_sensitivity(m, labels, effects) for m in runs]}
        for name, found in row.items():
            scores.setdefault(name, []).append(np.mean(found))
    for name, found in scores.items():
        assert found == sorted(found), (name, found)
        assert found[-1] > found[2] + 0.1 * (found[-1] - found[0]), (name, found)
    for name in ("gap", "boxes"):
        assert abs(scores[name][2]) < 0.2 * scores[name][-1], (name, scores[name])  # random is zero


def test_box_sensitivity_is_a_correlation_over_boxes(target, images):
    effects = metrics.box_effects(target, images, n=25, seed=1)
    assert effects.boxes.shape == (25, GRID, GRID)
    assert effects.drops.shape == (2, 25, 4)
    assert effects.boxes.any((1, 2)).all()
    maps = torch.rand(2, GRID, GRID, generator=torch.Generator().manual_seed(9))
    found = metrics.box_sensitivity(maps, LABELS, effects)
    for i in range(2):
        sums = [float(maps[i][torch.as_tensor(box)].sum()) for box in effects.boxes]
        assert found[i] == pytest.approx(np.corrcoef(sums, effects.drops[i, :, LABELS[i]])[0, 1], abs=1e-6)
    assert np.isnan(metrics.box_sensitivity(torch.zeros(2, GRID, GRID), LABELS, effects)).all()
    with pytest.raises(ValueError, match=r"n \(=2\) boxes are too few"):
        metrics.box_effects(target, images, n=2)


def test_compactness_counts_patches_that_are_nearly_zero():
    maps = torch.tensor([[[1.0, 0.04], [-0.9, 0.051]], [[0.0, 0.0], [0.0, 0.0]], [[1.0, 1.0], [1.0, 1.0]]])
    found = metrics.compactness(maps)
    assert found[0] == pytest.approx(0.25)
    assert np.isnan(found[1])
    assert found[2] == 0


def test_class_sensitivity_is_zero_for_a_map_that_knows_no_class_and_two_for_opposites(target, images):
    found = metrics.class_sensitivity(make("edges", target), target, images)
    for values in found.values():
        np.testing.assert_allclose(values, 0, atol=1e-6)
    base = torch.rand(GRID, GRID, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        best = target(target.pixels(images)).argmax(1)

    def explain(_, labels):
        return torch.stack([base if label == own else -base for label, own in zip(labels, best, strict=True)])

    for values in metrics.class_sensitivity(explain, target, images).values():
        np.testing.assert_allclose(values, 2, atol=1e-6)


def test_a_map_that_does_not_know_the_model_stays_when_the_model_is_shuffled(target, images):
    before = {k: v.clone() for k, v in target.backbone.state_dict().items()}
    edges, cdam = (metrics.randomisation_check(lambda t, n=n: make(n, t), target, images, LABELS)
                   for n in ("edges", "cdam"))  # fmt: skip
    assert edges.stages == ("none", "head", *(f"block {i}" for i in range(5, -1, -1)), "embedding")
    for found in (edges.spearman, edges.ssim):
        np.testing.assert_allclose(found, 1, atol=1e-6)
    np.testing.assert_allclose(cdam.spearman[0], 1, atol=1e-6)
    assert abs(cdam.spearman[-1]).max() < 0.4
    assert all(torch.equal(v, target.backbone.state_dict()[k]) for k, v in before.items())


def test_structural_similarity_of_known_pairs():
    rng = np.random.default_rng(0)
    a = rng.random((16, 16))
    assert structural_similarity(a, a) == pytest.approx(1)
    assert structural_similarity(a, 3 * a + 7) == pytest.approx(1)
    assert structural_similarity(a, -a) < 0
    assert abs(np.mean([structural_similarity(a, rng.random((16, 16))) for _ in range(20)])) < 0.1
    assert structural_similarity(a, np.ones((16, 16))) == 0
    half = [structural_similarity(a, (1 - q) * rng.random((16, 16)) + q * a) for q in (0.2, 0.5, 0.8)]
    assert half == sorted(half)


def test_bad_input_is_named(target, images, maps):
    with pytest.raises(ValueError, match=r"fill \(='white'\) must be one of mean, blur"):
        metrics.removal_curves(target, images, maps, LABELS, fill="white")
    with pytest.raises(ValueError, match=r"steps \(=1\) must be at least 2"):
        metrics.removal_curves(target, images, maps, LABELS, steps=1)
    with pytest.raises(ValueError, match=r"maps of shape \(2, 8, 8\) do not fit 2 pictures on a grid of 16 x 16"):
        metrics.removal_curves(target, images, maps[:, :8, :8], LABELS)
