"""Attention, rollout, relevance propagation and LeGrad against their formulas, written out with loops."""

import pytest
import torch
from torch.nn import functional as F

from qpm_lib.explain.attention import AttentionMap, LeGrad, RelevancePropagation, Rollout


def written_out(target, pixels):
    """Attention weights (leaf tensors in one graph) and tokens after each block of the small toy transformer."""
    network, weights, ends = target.backbone.network, [], []
    x = network.norm_pre(network._pos_embed(network.patch_embed(pixels)))
    for block in network.blocks:
        b, t, d = x.shape
        heads = block.attn.num_heads
        q, k, v = block.attn.qkv(block.norm1(x)).view(b, t, 3, heads, d // heads).permute(2, 0, 3, 1, 4)
        a = (q @ k.transpose(2, 3) / (d // heads) ** 0.5).softmax(3)
        a = a if a.requires_grad else a.detach().requires_grad_()
        weights.append(a)
        x = x + block.ls1(block.attn.proj((a @ v).transpose(1, 2).reshape(b, t, d)))
        x = x + block.ls2(block.mlp(block.norm2(x)))
        ends.append(x)
    return weights, ends


def score(target, x, labels):
    x = F.layer_norm(x, x.shape[2:], target.backbone.network.norm.weight, target.backbone.network.norm.bias, 1e-6)
    first = target.backbone.n_prefix
    return target.model(x[:, first:], x[:, 0]).logits.gather(1, labels[:, None]).sum()


def read(target, flow, kind):
    first = target.backbone.n_prefix
    row = flow[:, 0, first:] if kind == "probe" else flow[:, first:, first:].mean(1)
    return row.unflatten(1, (4, 4)).detach()


@pytest.fixture(params=["probe", "qpm"])
def case(request, make_target, noise):
    target, labels = make_target("toy", request.param), torch.tensor([0, 2, 1])
    weights, ends = written_out(target, target.pixels(noise))
    return request.param, target, labels, weights, ends


def test_attention_is_the_last_row_of_the_cls_token(case, noise):
    _, target, labels, weights, _ = case
    expected = torch.stack([sum(heads[0] for heads in picture) / 3 for picture in weights[-1]])[:, 5:]
    torch.testing.assert_close(AttentionMap(target)(noise, labels), expected.unflatten(1, (4, 4)).detach())


def test_rollout_is_the_product_of_half_attention_and_half_identity(case, noise):
    kind, target, labels, weights, _ = case
    flow = torch.eye(weights[0].shape[-1])
    for a in weights:
        flow = torch.stack([0.5 * (p.mean(0) + torch.eye(p.shape[-1])) for p in a]) @ flow
    torch.testing.assert_close(flow.sum(2), torch.ones(3, flow.shape[-1]))
    torch.testing.assert_close(Rollout(target)(noise, labels), read(target, flow, kind))


def test_relevance_propagation_follows_its_recursion(case, noise):
    kind, target, labels, weights, ends = case
    slopes = torch.autograd.grad(score(target, ends[-1], labels), weights, retain_graph=True)
    size = weights[0].shape[-1]
    relevance = torch.eye(size).repeat(3, 1, 1)
    for a, g in zip(weights, slopes, strict=True):
        for i in range(3):
            step = sum((a[i, h] * g[i, h]).clamp(min=0) for h in range(3)) / 3
            relevance[i] = relevance[i] + step @ relevance[i]
    expected = read(target, relevance - torch.eye(size), kind)
    torch.testing.assert_close(RelevancePropagation(target)(noise, labels), expected, rtol=1e-4, atol=1e-6)
    assert (torch.diagonal(relevance, dim1=1, dim2=2) >= 1).all()  # what a token has of itself is never lost


def test_legrad_asks_every_block_for_its_own_score(case, noise):
    _, target, labels, weights, ends = case
    expected = 0
    for a, end in zip(weights, ends, strict=True):
        [slope] = torch.autograd.grad(score(target, end, labels), a, retain_graph=True)
        expected = expected + slope.relu().sum((1, 2))[:, 5:] / (3 * slope.shape[-1]) / len(weights)
    torch.testing.assert_close(LeGrad(target)(noise, labels), expected.unflatten(1, (4, 4)), rtol=1e-4, atol=1e-7)


def test_attention_that_does_not_show_its_weights_is_refused(make_target, noise, monkeypatch):
    target = make_target("toy", "probe")
    monkeypatch.delattr(target.backbone.network.blocks[0].attn, "fused_attn")
    with pytest.raises(ValueError, match="does not show its weights: choose a method that needs none"):
        Rollout(target)(noise, torch.tensor([0, 1, 2]))
