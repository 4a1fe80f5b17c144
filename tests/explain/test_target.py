"""The function that is explained: the same scores as the model, taps of every kind, and what is refused."""

import pytest
import torch
from PIL import Image

from qpm_lib.backbones.taps import tapped
from qpm_lib.explain.cdam import CDAM
from qpm_lib.explain.registry import possible
from qpm_lib.explain.target import Target, concept_target


@pytest.mark.parametrize("kind", ["probe", "dense", "qpm", "sldd"])
@pytest.mark.parametrize("name", ["toy", "dinov2_vits14_reg", "dinov3_vits16"])
def test_scores_are_those_of_the_model(name, kind, make_target, noise):
    target = make_target(name, kind)
    tokens = target.backbone.tokens(target.backbone.preprocess(noise))
    expected = target.model(tokens.patches, tokens.cls).logits
    torch.testing.assert_close(target(target.pixels(noise)), expected)
    assert target.reads_cls == (kind == "probe")


def test_who_reads_the_cls_token_is_found_out(small):
    from qpm_lib.core.config import AdapterConfig
    from qpm_lib.model.dense import DenseModel

    for pooling, reads in (("avg", False), ("max", False), ("cls", True), ("cls_avg", True)):
        config = AdapterConfig(n_layers=1, n_features=5, pooling=pooling)
        assert Target(DenseModel(48, 3, config), small("toy")).reads_cls == reads


@pytest.mark.parametrize("name", ["toy", "dino_vits16", "dinov2_vits14_reg", "dinov3_vits16"])
def test_taps_hold_what_the_blocks_compute(name, small, noise):
    backbone = small(name)
    names = ("blocks.0.input", "blocks.0.output", "blocks.1.input", "blocks.-1.norm1", "blocks.0.attention", "final")
    with torch.no_grad(), tapped(backbone, *names) as taps:
        tokens = backbone(backbone.preprocess(noise))
    assert set(taps) == set(names)
    assert torch.equal(taps["blocks.0.output"], taps["blocks.1.input"])
    torch.testing.assert_close(taps["blocks.-1.norm1"], backbone.blocks[1].norm1(taps["blocks.1.input"]))
    torch.testing.assert_close(taps["final"][:, backbone.n_prefix :], tokens.patches)
    attention = taps["blocks.0.attention"]
    assert attention.shape[0] == 3
    assert attention.shape[2] == attention.shape[3] == backbone.n_prefix + 16
    torch.testing.assert_close(attention.sum(3), torch.ones(attention.shape[:3]))


def test_stages_of_a_resnet_are_blocks(small, noise):
    backbone = small("resnet50")
    with torch.no_grad(), tapped(backbone, "blocks.0.output", "blocks.-1.output", "final") as taps:
        tokens = backbone(backbone.preprocess(noise))
    assert taps["blocks.0.output"].shape == (3, 256, 32, 32)
    assert torch.equal(taps["blocks.-1.output"], taps["final"])
    torch.testing.assert_close(taps["final"].mean((2, 3)), tokens.cls)
    with (
        pytest.raises(ValueError, match=r"'blocks.0.norm1' is not in backbone resnet50: .*PART of input, output"),
        tapped(backbone, "blocks.0.norm1"),
    ):
        pass


@pytest.mark.parametrize(
    "name", ["blocks.2.input", "blocks.-3.input", "blocks.0", "blocks.x.input", "norm", "blocks.0.q"]
)
def test_unknown_taps_are_named_and_leave_no_hook(name, small):
    backbone = small("toy")
    with (
        pytest.raises(ValueError, match="I from -2 to 1 and PART of input, norm1, attention, output"),
        tapped(backbone, "blocks.0.output", "blocks.0.attention", name),
    ):
        pass
    assert not backbone.blocks[0]._forward_hooks
    assert backbone.blocks[0].attn.fused_attn


def test_without_gradients_taps_are_left_as_they_are(small, noise):
    backbone = small("toy")
    pixels = backbone.preprocess(noise)
    with tapped(backbone, "blocks.1.input") as taps:
        tokens = backbone(pixels)
        assert taps["blocks.1.input"].is_leaf
        assert tokens.cls.requires_grad
        backbone.tokens(pixels)
        assert not taps["blocks.1.input"].requires_grad
    assert not backbone(pixels).cls.requires_grad


@pytest.mark.parametrize("name", ["toy", "dinov2_vits14_reg", "dinov3_vits16"])
@pytest.mark.parametrize("tap", ["blocks.0.input", "blocks.1.input", "blocks.0.norm1", "final"])
def test_the_rest_takes_several_versions_of_each_picture(name, tap, make_target, noise):
    target = make_target(name, "probe")
    pixels = target.pixels(noise)
    rest, logits = target.split(pixels, tap), target(pixels)
    torch.testing.assert_close(rest(rest.activation.repeat(2, 1, 1)), logits.repeat(2, 1))
    for place in ("blocks.0.attention", "blocks.0.output"):
        with pytest.raises(ValueError, match="cut a transformer at final"):
            target.split(pixels, place)


def test_pictures_of_other_kinds_are_read_and_none_is_refused(make_target):
    target = make_target("toy", "probe")
    picture = Image.new("RGB", (20, 20))
    with pytest.raises(ValueError, match="no pictures were given"):
        target.pixels([])
    assert target.pixels([picture.convert("L"), picture.convert("RGBA")]).shape == (2, 3, 32, 32)


def test_a_concept_is_the_dot_product_with_the_mean_of_its_pictures(small, noise):
    backbone = small("toy")
    cls = backbone.tokens(backbone.preprocess(noise)).cls
    concept = concept_target(backbone, noise[:2])
    assert concept.n_classes == 1
    assert concept.reads_cls
    torch.testing.assert_close(concept(concept.pixels(noise))[:, 0], cls @ cls[:2].mean(0), rtol=1e-4, atol=1e-4)
    assert CDAM(concept)(noise, torch.zeros(3, dtype=torch.long)).shape == (3, 4, 4)
    one_by_one = concept_target(backbone, noise[:2], batch_size=1)
    torch.testing.assert_close(one_by_one.model.class_weight, concept.model.class_weight, rtol=1e-4, atol=1e-5)
    assert not {"rise", "intrinsic"} & set(possible(concept))
    with pytest.raises(ValueError, match="needs pictures that show it"):
        concept_target(backbone, [])
