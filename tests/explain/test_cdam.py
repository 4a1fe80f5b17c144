"""CDAM against its formula, computed here without hooks from the weights; smooth and integrated against theirs."""

import pytest
import torch
from torch.nn import functional as F

from qpm_lib.explain.cdam import CDAM, IntegratedCDAM, SmoothCDAM
from qpm_lib.explain.target import Target

BACKBONES = ("toy", "dino_vits16", "dinov2_vits14_reg")


def tokens_before_the_last_block(backbone, pixels):
    """Input of the last block, step by step."""
    network = backbone.network
    x = network.norm_pre(network._pos_embed(network.patch_embed(pixels)))
    for block in network.blocks[:-1]:
        x = block(x)
    return x


def score_of_norm1(backbone, model, x, normed, c):
    """f_c as a function of what enters attention in the last block, written out."""
    network, block = backbone.network, backbone.network.blocks[-1]
    b, t, d = normed.shape
    heads = block.attn.num_heads
    qkv = F.linear(normed, block.attn.qkv.weight, block.attn.qkv.bias)
    q, k, v = qkv.view(b, t, 3, heads, d // heads).permute(2, 0, 3, 1, 4)
    weights = (q @ k.transpose(2, 3) / (d // heads) ** 0.5).softmax(3)
    mixed = F.linear((weights @ v).transpose(1, 2).reshape(b, t, d), block.attn.proj.weight, block.attn.proj.bias)
    x = x + mixed * getattr(block.ls1, "gamma", 1)
    hidden = F.layer_norm(x, (d,), block.norm2.weight, block.norm2.bias, block.norm2.eps)
    hidden = F.linear(F.gelu(F.linear(hidden, block.mlp.fc1.weight, block.mlp.fc1.bias)), block.mlp.fc2.weight,
                      block.mlp.fc2.bias)  # fmt: skip
    x = x + hidden * getattr(block.ls2, "gamma", 1)
    x = F.layer_norm(x, (d,), network.norm.weight, network.norm.bias, network.norm.eps)
    if normed.dtype == torch.double:  # a linear probe answers in float32
        return x[:, 0] @ model.class_weight[c].double() + model.bias[c].double()
    return model(x[:, backbone.n_prefix :], x[:, 0]).logits[:, c]


@pytest.fixture
def case(make_target, noise):
    def get(name, kind="probe"):
        target = make_target(name, kind)
        pixels = target.pixels(noise)
        x = tokens_before_the_last_block(target.backbone, pixels)
        block = target.backbone.network.blocks[-1]
        normed = F.layer_norm(x, x.shape[2:], block.norm1.weight, block.norm1.bias, block.norm1.eps)
        return target, x, normed

    return get


@pytest.mark.parametrize("name", BACKBONES)
@pytest.mark.parametrize("kind", ["probe", "qpm", "sldd"])
def test_cdam_is_tokens_times_gradient_at_norm1(name, kind, case, noise):
    target, x, normed = case(name, kind)
    leaf = normed.clone().requires_grad_()
    [slope] = torch.autograd.grad(score_of_norm1(target.backbone, target.model, x, leaf, 1).sum(), leaf)
    expected = (normed * slope).sum(2)[:, target.backbone.n_prefix :].unflatten(1, (4, 4))
    found = CDAM(target, tap="norm1")(noise, torch.tensor([1, 1, 1]))
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5 * float(expected.abs().max()))


@pytest.mark.parametrize("name", BACKBONES)
def test_cdam_is_what_the_score_gains_where_a_token_grows(name, case, noise):
    """d f / d a at a = 0, where a token is multiplied by 1 + a: by differences, in double precision."""
    import copy

    target, x, normed = case(name)
    backbone, model = copy.deepcopy(target.backbone).double(), target.model
    x, normed, first = x.double(), normed.double(), target.backbone.n_prefix
    found = CDAM(target)(noise, torch.tensor([2, 2, 2])).flatten(1)
    for place in (0, 7, 15):
        grown = torch.ones(normed.shape[1], 1, dtype=torch.double)
        grown[first + place] = 1 + 1e-4
        shrunk = 2 - grown
        up, down = (score_of_norm1(backbone, model, x, normed * scale, 2) for scale in (grown, shrunk))
        torch.testing.assert_close(
            found[:, place].double(), (up - down) / 2e-4, rtol=1e-3, atol=1e-3 * float(found.abs().max())
        )


def test_the_tap_follows_what_the_classifier_reads(make_target):
    assert CDAM(make_target("toy", "probe")).tap == "blocks.-1.norm1"
    for kind in ("dense", "qpm", "sldd"):
        assert CDAM(make_target("toy", kind)).tap == "final"
    with pytest.raises(ValueError, match=r"tap \(='norm2'\) must be one of norm1, block_input, final_norm"):
        CDAM(make_target("toy", "probe"), tap="norm2")


@pytest.mark.parametrize("tap", ["norm1", "block_input", "final_norm"])
@pytest.mark.parametrize("kind", ["probe", "qpm"])
def test_taps_are_places_of_the_same_function(tap, kind, make_target, noise):
    """The rest of the function, fed with the activation at a tap, gives the same scores and the same gradient."""
    target, labels = make_target("toy", kind), torch.tensor([0, 1, 2])
    method = CDAM(target, tap=tap)
    pixels = target.pixels(noise)
    rest = target.split(pixels, method.tap)
    torch.testing.assert_close(rest(rest.activation), target(pixels))
    leaf = rest.activation.clone().requires_grad_()
    [slope] = torch.autograd.grad(target.score(rest(leaf), labels).sum(), leaf)
    torch.testing.assert_close(method(noise, labels), target.on_grid((leaf * slope).sum(2).detach()))


@pytest.mark.parametrize("tap", ["norm1", "final_norm"])
@pytest.mark.parametrize("kind", ["probe", "dense", "qpm"])
def test_integrated_cdam_adds_up(tap, kind, make_target, noise):
    """To f(T) - f(0), where only the tokens at the tap are zero."""
    target, labels = make_target("toy", kind), torch.tensor([0, 1, 2])
    method = IntegratedCDAM(target, tap=tap, steps=200)
    pixels = target.pixels(noise)
    rest = target.split(pixels, method.tap)
    gone = target.score(rest(rest.activation) - rest(torch.zeros_like(rest.activation)), labels)
    torch.testing.assert_close(method.attributions(pixels, labels).sum(1), gone.detach(), rtol=0.01, atol=0.01)


def test_a_path_through_a_norm_is_refused(make_target):
    with pytest.raises(ValueError, match="jumps at zero: choose norm1 or final_norm"):
        IntegratedCDAM(make_target("toy", "probe"), tap="block_input")


def test_smooth_cdam_is_the_mean_over_noisy_tokens(make_target, noise):
    target, labels = make_target("toy", "probe"), torch.tensor([0, 1, 2])
    pixels = target.pixels(noise)
    rest = target.split(pixels, "blocks.-1.norm1")
    tokens = rest.activation
    spread = torch.stack([one.max() - one.min() for one in tokens])[:, None, None]
    generator, expected = torch.Generator().manual_seed(4), 0
    for _ in range(5):
        drawn = torch.randn(1, *tokens.shape[1:], generator=generator)
        noisy = (tokens + 0.05 * spread * drawn).requires_grad_()
        [slope] = torch.autograd.grad(target.score(rest(noisy), labels).sum(), noisy)
        expected = expected + (noisy * slope).sum(2).detach() / 5
    found = SmoothCDAM(target, steps=5, seed=4)(noise, labels)
    torch.testing.assert_close(found, target.on_grid(expected))
    quiet = SmoothCDAM(target, steps=3, noise=0.0)(noise, labels)
    torch.testing.assert_close(quiet, CDAM(target)(noise, labels), rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match=r"steps \(=0\) must be at least 1"):
        SmoothCDAM(target, steps=0)


def test_a_pooled_head_does_not_see_its_own_patches_at_norm1(rigged, bright_models):
    """Where attention adds nothing, the published tap is blind for a head that pools patches; ours is not."""
    import copy

    import numpy as np
    from PIL import Image

    backbone = copy.deepcopy(rigged)
    for block in backbone.network.blocks:
        block.attn.proj.weight.data.zero_()
    target = Target(bright_models["qpm"], backbone)
    picture = np.full((32, 32, 3), 107, np.uint8)
    picture[8:16, 8:16] = 255
    given = [Image.fromarray(picture)], torch.tensor([0])
    assert float(CDAM(target, tap="norm1")(*given).abs().max()) == 0
    for tap in ("block_input", "final_norm"):
        assert CDAM(target, tap=tap)(*given)[0].flatten().argmax() == 5
