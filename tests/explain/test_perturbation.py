"""Token ablation, RISE, Grad-CAM and integrated gradients against their definitions."""

import pytest
import torch
from torch.nn import functional as F

from qpm_lib.explain.gradients import GradCAM, IntegratedGradients
from qpm_lib.explain.perturbation import RISE, TokenAblation


@pytest.mark.parametrize("kind", ["probe", "qpm"])
def test_ablation_deletes_one_token_at_a_time(kind, make_target, noise):
    target = make_target("toy", kind)
    network, labels = target.backbone.network, torch.tensor([0, 2, 1])
    found = TokenAblation(target)(noise, labels).flatten(1)

    def score(x):
        x = network.norm(network.blocks(x))
        patches, cls = x[:, 5:], x[:, 0]
        if kind == "probe":
            return target.model(patches, cls).logits
        return target.model.head(target.model.adapter(patches).mean(1))

    with torch.no_grad():
        whole = network.norm_pre(network._pos_embed(network.patch_embed(target.pixels(noise))))
        for i in (0, 9, 15):
            without = torch.cat([whole[:, : 5 + i], whole[:, 6 + i :]], 1)
            drop = (score(whole) - score(without)).gather(1, labels[:, None])[:, 0]
            torch.testing.assert_close(found[:, i], drop, rtol=1e-3, atol=1e-4)


def test_rotary_positions_go_with_their_tokens(make_target, noise):
    """The tokens that are left keep the places they had: without any change, scores stay the same."""
    target = make_target("dinov3_vits16", "probe")
    pixels = target.pixels(noise)
    rest = target.split(pixels, "blocks.0.input")
    everything = torch.arange(16).expand(3, -1)
    torch.testing.assert_close(rest(rest.activation, everything), target(pixels))
    first = target.backbone.n_prefix
    turned = torch.cat([rest.activation[:, :first], rest.activation[:, first:].flip(1)], 1)
    torch.testing.assert_close(rest(turned, everything.flip(1)), target(pixels))
    assert not torch.allclose(rest(turned, everything), target(pixels), atol=1e-3)


def test_pictures_asked_about_several_classes_are_tried_once(make_target, noise, monkeypatch):
    target = make_target("toy", "qpm")
    tried = []
    for method in (TokenAblation(target), RISE(target, masks=16)):
        one = method.try_one
        monkeypatch.setattr(method, "try_one", lambda pixels, one=one: tried.append(1) or one(pixels))
        maps = method([noise[0], noise[0], noise[1]], torch.tensor([0, 1, 0]))
        assert len(tried) == 2
        tried.clear()
        for picture, label, expected in ((0, 0, maps[0]), (0, 1, maps[1]), (1, 0, maps[2])):
            torch.testing.assert_close(method([noise[picture]], torch.tensor([label]))[0], expected)
        tried.clear()


def test_rise_is_the_mean_of_masks_by_probability(make_target, noise):
    target = make_target("toy", "probe")
    method, labels = RISE(target, masks=40, cells=3, seed=5), torch.tensor([0, 2, 1])
    found, masks, pixels = method(noise, labels), method._drawn, target.pixels(noise)
    assert masks.shape == (40, 32, 32)
    assert ((masks >= -1e-6) & (masks <= 1 + 1e-6)).all()
    assert abs(float(masks.mean()) - 0.5) < 0.1
    assert not torch.equal(masks, RISE(target, masks=40, cells=3, seed=6)._drawn)
    expected = torch.zeros(3, 32, 32)
    with torch.no_grad():
        for mask in masks:
            expected += target(pixels * mask).softmax(1).gather(1, labels[:, None])[..., None] * mask / (40 * 0.5)
    torch.testing.assert_close(found, F.avg_pool2d(expected[:, None], 8)[:, 0])
    with pytest.raises(ValueError, match=r"masks \(=0\)"):
        RISE(target, masks=0)


@pytest.mark.parametrize("name", ["toy", "resnet50"])
def test_grad_cam_is_its_formula(name, make_target, noise):
    target, labels = make_target(name, "probe"), torch.tensor([0, 2, 1])
    network = target.backbone.network
    pixels = target.pixels(noise)
    if name == "resnet50":
        features = network.forward_features(pixels).detach().requires_grad_()
        score = target.model(features.flatten(2).transpose(1, 2), features.mean((2, 3))).logits
        maps = features
    else:
        rest = target.split(pixels, "blocks.-1.norm1")
        features = rest.activation.clone().requires_grad_()
        score = rest(features)
        maps = features[:, 5:].transpose(1, 2).unflatten(2, (4, 4))
    [slope] = torch.autograd.grad(score.gather(1, labels[:, None]).sum(), features)
    slope = slope if name == "resnet50" else slope[:, 5:].transpose(1, 2).unflatten(2, (4, 4))
    expected = (slope.mean((2, 3), keepdim=True) * maps).sum(1).relu().detach()
    torch.testing.assert_close(GradCAM(target)(noise, labels), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("kind", ["probe", "qpm"])
def test_integrated_gradients_add_up_to_what_the_picture_adds(kind, make_target, noise):
    target, labels = make_target("toy", kind), torch.tensor([0, 2, 1])
    pixels = target.pixels(noise)
    found = IntegratedGradients(target, steps=300)(noise, labels).sum((1, 2))
    gone = target.score(target(pixels) - target(torch.zeros_like(pixels)), labels)
    torch.testing.assert_close(found, gone, rtol=0.02, atol=0.05)
