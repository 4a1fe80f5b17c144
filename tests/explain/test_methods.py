"""One contract, and every method with every classifier held to it."""

import numpy as np
import pytest
import torch
from PIL import Image
from planted_models import random_decoder

from qpm_lib.backbones.weights import state_hash
from qpm_lib.explain.base import ExplanationMethod
from qpm_lib.explain.registry import METHODS, make, possible
from qpm_lib.explain.target import Target

KINDS = ("probe", "dense", "qpm", "sldd")
CHEAP = {"smooth_cdam": {"steps": 3}, "integrated_cdam": {"steps": 3}, "integrated_gradients": {"steps": 3}}
CHEAP |= {"rise": {"masks": 24, "cells": 3}}
CASES = [(name, kind) for name in METHODS for kind in KINDS if name != "intrinsic" or kind in ("qpm", "sldd")]


def options_of(name, target):
    """Options that make a method cheap; the explainer of a ranking has random weights."""
    return {"explainer": random_decoder(target)} if name == "ranking" else CHEAP.get(name, {})


def hooks_of(module):
    return [(part, hook) for part in module.modules() for hook in (*part._forward_hooks, *part._forward_pre_hooks)]


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_the_contract(name, kind, make_target, noise):
    target = make_target("toy", kind)
    backbone, model = target.backbone, target.model
    before = state_hash({**backbone.state_dict(), **model.state_dict()})
    method = make(name, target, **options_of(name, target))
    assert isinstance(method, ExplanationMethod)
    labels = torch.tensor([0, 2, 1])
    maps = method(noise, labels)
    assert maps.shape == (3, 4, 4)
    assert maps.dtype == torch.float32
    assert torch.isfinite(maps).all()
    assert not maps.requires_grad
    assert torch.equal(maps, method(noise, labels))
    for i in range(3):
        alone = method(noise[i : i + 1], labels[i : i + 1])
        torch.testing.assert_close(alone[0], maps[i], rtol=1e-4, atol=1e-5 * float(maps.abs().max()))
    two_by_two = make(name, target, batch_size=2, **options_of(name, target))(noise, labels)
    torch.testing.assert_close(two_by_two, maps, rtol=1e-4, atol=1e-5 * float(maps.abs().max()))
    other = method(noise, torch.tensor([1, 0, 2]))
    assert (not torch.allclose(other, maps, rtol=1e-3)) == METHODS[name].class_specific
    assert METHODS[name].signed or (maps >= 0).all()

    assert not hooks_of(backbone.network)
    assert not any(p.requires_grad or p.grad is not None for p in backbone.parameters())
    assert not any(p.grad is not None for p in model.parameters())
    assert not model.training
    assert all(block.attn.fused_attn for block in backbone.blocks)
    assert state_hash({**backbone.state_dict(), **model.state_dict()}) == before


@pytest.mark.parametrize("name", [n for n in METHODS if n not in ("random", "centre", "ranking")])
@pytest.mark.parametrize("kind", ["probe", "dense", "qpm"])
def test_a_planted_patch_is_the_peak(name, kind, rigged, bright_models):
    target = Target(bright_models[kind], rigged)
    if name == "intrinsic" and kind != "qpm":
        pytest.skip("the intrinsic map is that of a DinoQPM")
    for place in (6, 13):
        picture = np.full((32, 32, 3), 107, np.uint8)  # the mean colour of the preprocessing
        y, x = divmod(place, 4)
        picture[8 * y : 8 * y + 8, 8 * x : 8 * x + 8] = 255
        options = {"rise": {"masks": 400, "cells": 4}}.get(name, {})
        heat = make(name, target, **options)([Image.fromarray(picture)], torch.tensor([0]))[0].flatten()
        assert heat.argmax() == place
        assert heat[place] > heat.sort().values[-2] + 0.05 * heat.abs().max()


@pytest.mark.parametrize("backbone", ["dino_vits16", "dinov2_vits14_reg", "dinov3_vits16", "resnet50"])
def test_what_a_backbone_allows(backbone, make_target, noise):
    target = make_target(backbone, "probe")
    found = possible(target)
    general = {"class_activation_map", "grad_cam", "integrated_gradients", "rise", "random", "centre", "edges"}
    assert set(found) == (general if backbone == "resnet50" else set(METHODS) - {"intrinsic", "ranking"})
    for name in found:
        maps = make(name, target, **CHEAP.get(name, {}))(noise, torch.tensor([0, 1, 2]))
        assert maps.shape == (3, 4, 4)
        assert torch.isfinite(maps).all()
        assert float(maps.abs().max()) > 0
    for name in set(METHODS) - set(found) - {"intrinsic", "ranking"}:
        with pytest.raises(ValueError, match="needs a vision transformer, which backbone resnet50 is not"):
            make(name, target)


@pytest.mark.parametrize("name", METHODS)
def test_bad_input_is_named(name, make_target, noise):
    target = make_target("toy", "qpm")
    method = make(name, target, **options_of(name, target))
    with pytest.raises(ValueError, match=r"target class \(=3\) is out of range: choose from 0 to 2"):
        method(noise, torch.tensor([0, 1, 3]))
    with pytest.raises(ValueError, match="one class number for each of 3 pictures"):
        method(noise, torch.tensor([0, 1]))
    with pytest.raises(ValueError, match="no pictures were given"):
        method([], torch.tensor([], dtype=torch.long))
    with pytest.raises(ValueError, match=f"method {name}: .*'colour'"):
        make(name, target, colour="red")
    with pytest.raises(ValueError, match=r"batch_size \(=0\)"):
        make(name, target, batch_size=0)


def test_unknown_methods_are_named_with_those_that_there_are(target):
    with pytest.raises(ValueError, match=r"unknown explanation method 'cam': choose from intrinsic, .*edges"):
        make("cam", target)


def test_where_memory_does_not_suffice_the_batch_is_halved_once_and_said_so(make_target, noise, caplog, monkeypatch):
    target = make_target("toy", "probe")
    expected = make("cdam", target)(noise, torch.tensor([0, 1, 2]))
    pixels = target.pixels

    def small_memory(images):
        if len(images) > 2:
            raise torch.OutOfMemoryError("out of memory")
        return pixels(images)

    monkeypatch.setattr(target, "pixels", small_memory)
    method = make("cdam", target, batch_size=4)
    torch.testing.assert_close(method(noise, torch.tensor([0, 1, 2])), expected, rtol=1e-4, atol=1e-5)
    assert "explained 2 at a time" in caplog.text
    monkeypatch.setattr(target, "pixels", lambda images: (_ for _ in ()).throw(torch.OutOfMemoryError("again")))
    with pytest.raises(torch.OutOfMemoryError):
        make("cdam", target)(noise, torch.tensor([0, 1, 2]))


@pytest.mark.parametrize("name", [n for n in METHODS if n not in ("random", "centre", "edges")])
def test_no_hook_is_left_by_an_error(name, make_target, noise, monkeypatch):
    target = make_target("toy", "qpm")
    method = make(name, target, **options_of(name, target))
    norm = target.backbone.network.norm

    def broken(_):
        raise RuntimeError("broken on purpose")

    monkeypatch.setattr(norm, "forward", broken)
    with pytest.raises(RuntimeError, match="broken on purpose"):
        method(noise, torch.tensor([0, 1, 2]))
    assert not hooks_of(target.backbone.network)
    assert all(block.attn.fused_attn for block in target.backbone.blocks)


@pytest.mark.gpu
@pytest.mark.parametrize(
    ("kind", "name"), [(k, n) for k in ("probe", "qpm") for n in METHODS if (k, n) != ("probe", "intrinsic")]
)
def test_a_gpu_gives_the_same_maps(kind, name, make_target, noise):
    import copy

    target = make_target("toy", kind)
    on_gpu = Target(copy.deepcopy(target.model).cuda(), copy.deepcopy(target.backbone).cuda())
    labels = torch.tensor([0, 2, 1])
    maps = make(name, target, **options_of(name, target))(noise, labels)
    found = make(name, on_gpu, **options_of(name, on_gpu))(noise, labels)
    torch.testing.assert_close(found, maps, rtol=1e-2, atol=1e-3 * float(maps.abs().max()))
