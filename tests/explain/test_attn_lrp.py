"""AttnLRP: each rule against its formula from the paper, and the sum of all relevance."""

import copy

import pytest
import torch
from torch import nn

from qpm_lib.backbones.taps import tapped
from qpm_lib.explain.attn_lrp import AttnLRP, relevance_rules
from qpm_lib.explain.target import Target
from qpm_lib.model.dense import LinearProbe


@pytest.fixture(scope="module")
def without_bias(small, models):
    """The toy architecture and a probe without any bias."""
    backbone = copy.deepcopy(small("toy"))
    for name, parameter in backbone.network.named_parameters():
        if name.endswith("bias"):
            parameter.data.zero_()
    return Target(LinearProbe(models["probe"].class_weight, torch.zeros(3)), backbone)


def by_hand(target, pixels, labels):
    """Relevance propagated backwards layer by layer, explicitly; also what each softmax keeps for itself."""
    network, seen = target.backbone.network, []
    x = network.norm_pre(network._pos_embed(network.patch_embed(pixels)))
    for block in network.blocks:
        b, t, d = x.shape
        heads, size = block.attn.num_heads, d // block.attn.num_heads
        normed = block.norm1(x)
        q, k, v = block.attn.qkv(normed).view(b, t, 3, heads, size).permute(2, 0, 3, 1, 4)
        logits = q @ k.transpose(2, 3) / size**0.5
        a = logits.softmax(3)
        mixed = (a @ v).transpose(1, 2).reshape(b, t, d)
        added = block.ls1(block.attn.proj(mixed))
        middle = x + added
        normed2 = block.norm2(middle)
        hidden = block.mlp.fc1(normed2)
        active = block.mlp.act(hidden)
        added2 = block.ls2(block.mlp.fc2(active))
        seen.append((x, normed, q, k, v, logits, a, mixed, added, middle, normed2, hidden, active, added2))
        x = middle + added2
    out = network.norm(x)

    def linear(layer, inputs, outputs, relevance, scale=1.0):
        """Epsilon rule with epsilon 0."""
        share = torch.where(outputs == 0, torch.zeros_like(outputs), relevance / outputs)
        return inputs * ((share * scale) @ layer.weight)

    def norm(layer, inputs, relevance):
        """Identity rule for the deviation; the centring is a linear layer."""
        outputs = layer(inputs)
        share = torch.where(outputs == 0, torch.zeros_like(outputs), relevance / outputs) * layer.weight
        share = share / (inputs.var(-1, unbiased=False, keepdim=True) + layer.eps).sqrt()
        return inputs * (share - share.mean(-1, keepdim=True))

    def add(first, second, relevance):
        share = relevance / (first + second)
        return first * share, second * share

    relevance = torch.zeros_like(out)
    relevance[:, 0] = out[:, 0] * target.model.class_weight[labels]
    relevance, kept = norm(network.norm, x, relevance), 0
    for block, values in zip(reversed(network.blocks), reversed(seen), strict=True):
        x, normed, q, k, v, logits, a, mixed, added, middle, normed2, hidden, active, added2 = values
        b, t, d = x.shape
        heads = block.attn.num_heads
        onwards, inner = add(middle, added2, relevance)
        inner = linear(block.mlp.fc2, active, added2, inner, block.ls2.gamma)  # the activation keeps it all
        onwards = onwards + norm(block.norm2, middle, linear(block.mlp.fc1, normed2, hidden, inner))
        onwards, inner = add(x, added, onwards)
        inner = linear(block.attn.proj, mixed, added, inner, block.ls1.gamma)
        share = (inner / mixed).view(b, t, heads, d // heads).transpose(1, 2)
        of_a = a * (share @ v.transpose(2, 3)) / 2
        of_v = v * (a.transpose(2, 3) @ share) / 2
        of_logits = logits * (of_a - a * of_a.sum(3, keepdim=True))  # softmax, first-order term
        kept = kept + (of_a - of_logits).sum((1, 2, 3))
        share = of_logits / logits / (d // heads) ** 0.5
        of_q, of_k = q * (share @ k) / 2, k * (share.transpose(2, 3) @ q) / 2
        qkv = torch.stack([of_q, of_k, of_v], 2).permute(0, 3, 2, 1, 4).reshape(b, t, 3 * d)
        outputs = torch.stack([q, k, v], 2).permute(0, 3, 2, 1, 4).reshape(b, t, 3 * d)
        relevance = onwards + norm(block.norm1, x, linear(block.attn.qkv, normed, outputs, qkv))
    return relevance.sum(2), kept


def test_relevance_is_that_of_the_rules_applied_layer_by_layer(without_bias, noise):
    labels = torch.tensor([0, 2, 1])
    target = Target(copy.deepcopy(without_bias.model).double(), copy.deepcopy(without_bias.backbone).double())
    pixels = target.pixels(noise).double()
    expected, _ = by_hand(target, pixels, labels)
    found = AttnLRP(without_bias).relevance(without_bias.pixels(noise), labels)
    torch.testing.assert_close(found.double(), expected, rtol=1e-3, atol=1e-3 * float(expected.abs().max()))


def test_tokens_and_what_the_softmax_keeps_add_up_to_the_logit(without_bias, noise):
    labels = torch.tensor([0, 2, 1])
    pixels = without_bias.pixels(noise)
    _, kept = by_hand(without_bias, pixels, labels)
    logits = without_bias.score(without_bias(pixels), labels)
    total = AttnLRP(without_bias).relevance(pixels, labels).sum(1) + kept
    torch.testing.assert_close(total, logits, rtol=0.01, atol=0.01)


def test_where_every_token_looks_everywhere_alike_the_softmax_keeps_half_of_what_passes_it(without_bias, noise):
    """Attention without queries is a constant: its half of the relevance has nowhere to go."""
    backbone = copy.deepcopy(without_bias.backbone)
    for block in backbone.network.blocks:
        block.attn.qkv.weight.data[:48] = 0
    target, labels = Target(without_bias.model, backbone), torch.tensor([0, 2, 1])
    pixels = target.pixels(noise)
    found = AttnLRP(target).relevance(pixels, labels)
    assert torch.isfinite(found).all()
    for block in backbone.network.blocks:
        block.attn.proj.weight.data.zero_()  # without attention nothing is lost
    logits = target.score(target(pixels), labels)
    torch.testing.assert_close(AttnLRP(target).relevance(pixels, labels).sum(1), logits, rtol=0.01, atol=0.01)


@pytest.mark.parametrize("name", ["toy", "dinov2_vitg14", "dinov3_vits16plus"])
def test_the_rules_change_no_value(name, small, noise):
    """Also of gated networks, whose gate and value share relevance."""
    backbone = small(name)
    pixels = backbone.preprocess(noise)
    expected = backbone(pixels)
    with tapped(backbone, *(f"blocks.{i}.attention" for i in range(2))), relevance_rules(backbone):
        found = backbone(pixels)
    torch.testing.assert_close(found.patches, expected.patches, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found.cls, expected.cls, rtol=1e-4, atol=1e-4)


def test_other_norms_are_refused(small, models, noise):
    backbone = copy.deepcopy(small("toy"))
    backbone.network.norm = nn.Identity()
    with pytest.raises(ValueError, match="attn_lrp has no rule for Identity"):
        AttnLRP(Target(models["probe"], backbone))(noise, torch.tensor([0, 1, 2]))
    assert not backbone.network.blocks[0].norm1._forward_hooks
