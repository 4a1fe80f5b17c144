"""NAVE: planted regions are found, one number means one thing everywhere, the object lies inside, and bad input."""

import logging

import numpy as np
import planted_models
import pytest
import torch
from PIL import Image

from qpm_lib.backbones.frozen import random_backbone
from qpm_lib.explain.descriptors import Described
from qpm_lib.explain.nave import NAVE
from qpm_lib.explain.pixels import sharpen


def described(labels, *, spread=0.02, norms=None, seed=0):
    """Tokens of pictures whose regions are known: one direction each, and a little noise."""
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.eye(12)[torch.as_tensor(labels)].flatten(1, 2)
    noise = spread * torch.randn(tokens.shape, generator=generator)
    return Described(tokens + noise, torch.zeros(tokens.shape[:2], dtype=torch.bool))


@pytest.fixture
def nave(small):
    return NAVE(small("toy"), k=3)


REGIONS = np.zeros((2, 4, 4), int)  # ground, and two things in it
REGIONS[0, 1:3, 1:3] = 1
REGIONS[1, 1, 1] = 1
REGIONS[1, 2, 1:3] = 2
REGIONS[0, 0, 0] = 2


def test_planted_regions_are_found_in_each_picture_alone(nave):
    labels = nave(described(REGIONS)).numpy()
    assert labels[0].tolist() == REGIONS[0].tolist()
    assert labels[1].tolist() == np.array([0, 2, 1])[REGIONS[1]].tolist()  # ordered by area in this picture


def test_shared_numbers_mean_the_same_in_all_pictures(nave):
    shared = nave.fit(described(REGIONS), finest=3)
    assert shared.transform(described(REGIONS, seed=1)).numpy().tolist() == REGIONS.tolist()
    assert shared.clusters.sizes.tolist() == [24, 5, 3]


def test_the_object_is_what_touches_the_border_less(nave):
    regions = np.where(REGIONS == 2, 0, REGIONS)
    shared = nave.fit(described(regions), finest=2)
    assert shared.border == pytest.approx([24 / 27, 0.0])
    assert shared.objects(described(regions)).numpy().tolist() == (regions == 1).tolist()


def test_clusters_within_the_object_alone(nave):
    inside = torch.as_tensor(REGIONS > 0)
    shared = nave.fit(described(REGIONS), finest=2, within=inside)
    found = shared.transform(described(REGIONS), 2).numpy()
    assert sorted(np.unique(found[REGIONS > 0]).tolist()) == [0, 1]
    assert len(set(found[REGIONS == 1].tolist())) == 1
    assert shared.clusters.sizes.sum() == (REGIONS > 0).sum()


def test_tokens_of_high_norm_make_no_cluster(nave, caplog):
    found = described(REGIONS)
    found.tokens[0, 3] = torch.eye(12)[11]
    found.artefacts[0, 3] = True
    assert nave.fit(found, finest=3).clusters.sizes.tolist() == [23, 5, 3]


def test_tokens_of_high_norm_are_found(small, noise, monkeypatch):
    nave = NAVE(small("toy"))
    assert not nave.describe(noise).artefacts.any()
    block = nave.backbone.blocks[-1]

    def lift(_, __, out):
        out = out.clone()
        out[:, nave.backbone.n_prefix + 5] *= 20
        return out

    hook = block.register_forward_hook(lift)
    try:
        found = nave.describe(noise).artefacts
    finally:
        hook.remove()
    assert found.nonzero().tolist() == [[i, 5] for i in range(len(noise))]


@pytest.mark.parametrize("name", ["toy", "dinov2_vits14_reg", "dinov3_vits16", "resnet50"])
def test_every_backbone_is_read(name, small, noise):
    nave = NAVE(small(name), k=2, taps=(3 / 4, 1))
    found = nave.describe(noise)
    assert found.tokens.shape[:2] == (len(noise), nave.grid**2)
    labels = nave(noise)
    assert labels.shape == (len(noise), nave.grid, nave.grid)
    assert torch.equal(labels, nave(noise))
    assert torch.equal(labels, nave(found))
    torch.testing.assert_close(nave.describe(noise[1:2]).tokens, found.tokens[1:2], atol=1e-4, rtol=1e-3)
    for block in nave.backbone.blocks:
        assert not block._forward_hooks


def test_tokens_have_length_one_at_each_depth(small, noise):
    tokens = NAVE(small("toy"), taps=(0.5, 1)).describe(noise).tokens
    torch.testing.assert_close(tokens.unflatten(-1, (2, -1)).square().sum(-1), torch.full((3, 16, 2), 0.5))


def test_channels_of_a_convolutional_network_are_scaled(small, noise):
    tokens = NAVE(small("resnet50")).describe(noise).tokens
    torch.testing.assert_close(tokens.mean(1), torch.zeros_like(tokens[:, 0]), atol=1e-4, rtol=0)
    deviation = tokens.std(1, correction=0)
    assert bool(((deviation - 1).abs() < 1e-3).logical_or(deviation == 0).all())


def test_depths_are_blocks_and_stages(small, backbone):
    assert NAVE(backbone).depths == (2, 3, 4, 6)
    assert NAVE(small("resnet50")).depths == (1, 2, 3, 4)
    assert NAVE(small("toy"), taps=(0.1, 0.2, 0.3)).depths == (1,)


def test_a_backbone_of_a_single_block_has_one_depth(noise):
    backbone = planted_models.small_backbone("toy", depth=1)
    assert NAVE(backbone).depths == (1,)
    assert NAVE(backbone, k=2)(noise).shape == (3, 4, 4)


def test_one_picture_is_enough(nave, noise):
    shared = nave.fit(noise[:1], finest=4)
    assert shared.transform(noise[:1], 2).shape == (1, 4, 4)
    assert nave(noise[:1]).shape == (1, 4, 4)


def test_pictures_with_few_different_tokens_get_fewer_clusters(nave, caplog):
    flat = Described(torch.ones(2, 16, 5), torch.zeros(2, 16, dtype=torch.bool))
    flat.tokens[1, :4] = 2
    with caplog.at_level(logging.WARNING):
        assert nave(flat).amax((1, 2)).tolist() == [0, 1]
    assert "2 of 2 pictures have fewer than 3 different tokens" in caplog.text
    with pytest.raises(ValueError, match=r"k \(=3\) exceeds the number of different tokens \(=2\)"):
        nave.fit(flat, finest=3)


def test_constant_pictures_are_segmented_like_any_other(nave):
    assert nave([Image.new("RGB", (20, 30), (9, 9, 9))] * 2).shape == (2, 4, 4)


def test_activations_that_are_not_finite_are_refused(noise):
    backbone = random_backbone("toy")
    backbone.blocks[3].mlp.fc2.weight[0, 0] = float("nan")
    with pytest.raises(ValueError, match="not finite"):
        NAVE(backbone)(noise)


@pytest.mark.parametrize(
    ("options", "said"),
    [({"taps": ()}, "taps"), ({"taps": (0.5, 1.5)}, "taps"), ({"k": 0}, "k "), ({"batch_size": 0}, "batch_size")],
)
def test_bad_options_are_refused(options, said, small):
    with pytest.raises(ValueError, match=said):
        NAVE(small("toy"), **options)


def test_bad_pictures_are_refused(nave, noise):
    for wrong in ([], ()):
        with pytest.raises(ValueError, match="no pictures were given"):
            nave(wrong)
        with pytest.raises(ValueError, match="no pictures were given"):
            nave.fit(wrong)
    with pytest.raises(ValueError, match="nothing to cluster"):
        nave.fit(noise, within=torch.zeros(3, 4, 4, dtype=torch.bool))
    with pytest.raises(ValueError, match="within"):
        nave.fit(noise, within=torch.ones(2, 4, 4, dtype=torch.bool))
    with pytest.raises(ValueError, match="must be from 1 to 4"):
        nave.fit(noise, finest=4).transform(noise, 5)


def test_a_segmentation_is_drawn_along_the_edges_of_the_picture():
    pixels = np.full((40, 40, 3), 30, np.uint8)
    pixels[6:30, 10:34] = 220
    truth = pixels[..., 0] > 100
    covered = truth.reshape(5, 8, 5, 8).mean((1, 3))
    inside = covered > 0.5
    distances = torch.from_numpy(np.stack([covered, 1 - covered], -1)).float()
    found = sharpen(distances, Image.fromarray(pixels)) == 1
    blocks = np.kron(inside, np.ones((8, 8), bool))
    wrong, wrong_blocks = (found != truth).sum(), (blocks != truth).sum()
    assert wrong < 0.5 * wrong_blocks


def test_clusters_keep_their_numbers_where_some_are_nowhere_sure():
    pixels = np.zeros((90, 90, 3), np.uint8)
    pixels[:, 30:60], pixels[:, 60:] = 120, 240
    distances = torch.full((9, 9, 5), 1.0)
    for third, cluster in enumerate((0, 2, 4)):
        distances[:, 3 * third : 3 * third + 3, cluster] = 0.1
    found = sharpen(distances, Image.fromarray(pixels))
    assert [int(np.bincount(found[:, x : x + 30].ravel()).argmax()) for x in (0, 30, 60)] == [0, 2, 4]
    assert set(np.unique(found)) == {0, 2, 4}


def test_one_cluster_covers_the_whole_picture():
    assert (sharpen(torch.ones(4, 4, 1), Image.new("RGB", (16, 16))) == 0).all()


def test_random_weights_are_the_same_for_a_seed_and_leave_the_generator_alone():
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    one, two, other = random_backbone("toy"), random_backbone("toy"), random_backbone("toy", seed=1)
    assert torch.equal(torch.rand(1), expected)
    assert one.fingerprint == two.fingerprint != other.fingerprint
    with pytest.raises(ValueError, match="unknown backbone"):
        random_backbone("nothing")


def test_what_is_usual_at_a_place_is_taken_away():
    found = described(REGIONS, spread=0.0).unusual()
    torch.testing.assert_close(found.tokens.mean(0), torch.zeros_like(found.tokens[0]))
    assert found.tokens[0, 15].abs().max() == 0  # ground in both
    assert found.tokens[0, 6].abs().max() == 0.5  # a thing in one of them
