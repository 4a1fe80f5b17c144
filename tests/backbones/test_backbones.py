import copy
import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch.nn import functional as F

from qpm_lib.backbones.frozen import FrozenBackbone, load_backbone
from qpm_lib.backbones.registry import BACKBONES
from qpm_lib.backbones.toy_vit import TOY_WEIGHTS, build_toy_vit, save_weights
from qpm_lib.backbones.weights import state_hash
from qpm_lib.core.artifacts import file_hash


def picture(width=128, height=128, seed=0):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 255, (height, width, 3), dtype=np.uint8))


def test_tokens_are_those_of_the_transformer(backbone):
    images = backbone.preprocess([picture(seed=s) for s in range(3)])
    tokens = backbone.tokens(images)
    with torch.no_grad():
        everything = backbone.network.forward_features(images)
    assert tokens.patches.shape == (3, 256, 192)
    torch.testing.assert_close(tokens.cls, everything[:, 0])
    torch.testing.assert_close(tokens.patches, everything[:, 5:])
    torch.testing.assert_close(backbone.token_grid(tokens.patches)[1, :, 2, 5], tokens.patches[1, 2 * 16 + 5])


def test_tokens_of_an_earlier_depth(backbone):
    cut, images = load_backbone("toy", depth=4), backbone.preprocess([picture(seed=s) for s in range(2)])
    vit = backbone.network
    with torch.no_grad():
        by_hand = vit.norm(vit.blocks[:4](vit._pos_embed(vit.patch_embed(images))))
    torch.testing.assert_close(cut.tokens(images).patches, by_hand[:, 5:])
    torch.testing.assert_close(cut.tokens(images).cls, by_hand[:, 0])
    assert cut.fingerprint["depth"] == 4 and cut.fingerprint["weights_sha256"] != backbone.fingerprint["weights_sha256"]
    assert "depth" not in backbone.fingerprint  # models that know of no depth stay usable
    assert load_backbone("toy", depth=6).tokens(images).patches.equal(backbone.tokens(images).patches)


def test_tokens_do_not_depend_on_the_batch(backbone):
    images = backbone.preprocess([picture(seed=s) for s in range(4)])
    torch.testing.assert_close(
        backbone.tokens(images).patches[2:3], backbone.tokens(images[2:3]).patches, atol=1e-4, rtol=1e-4
    )


def test_the_patch_order_is_that_of_the_picture(backbone):
    """Change one patch of the picture: its own token changes most."""
    images = backbone.preprocess([picture()])
    changed = images.clone()
    changed[:, :, 3 * 8 : 4 * 8, 10 * 8 : 11 * 8] = 2.0
    difference = (backbone.tokens(changed).patches - backbone.tokens(images).patches).norm(dim=-1)[0]
    assert int(difference.argmax()) == 3 * 16 + 10


def test_frozen_stays_frozen(backbone):
    backbone.train()
    assert not backbone.training
    assert not backbone.network.training
    assert not any(p.requires_grad for p in backbone.parameters())


def test_squash_and_crop():
    wide = Image.new("RGB", (256, 128), "black")
    wide.paste((255, 255, 255), (0, 0, 64, 128))
    squash, crop = (load_backbone("toy", aspect=a).preprocess([wide])[0, 0] for a in ("squash", "crop"))
    white = squash.max()
    assert abs((squash == white).float().mean() - 0.25) < 0.02
    assert (crop < white).all()


def test_pictures_of_another_size_are_refused(backbone):
    with pytest.raises(ValueError, match=r"\(64, 64\).*128.*preprocess"):
        backbone.tokens(torch.zeros(1, 3, 64, 64))


def test_the_embedded_backbone_reads_other_sizes(backbone):
    finer = load_backbone("toy", image_size=192)
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8))
    coarse, fine = (b.tokens(b.preprocess([image])).patches for b in (backbone, finer))
    assert finer.grid == 24 and fine.shape == (1, 576, 192) and coarse.shape == (1, 256, 192)
    assert F.cosine_similarity(fine.mean(1), coarse.mean(1)).item() > 0.9
    pooled = F.adaptive_avg_pool2d(finer.token_grid(fine), 16)  # each patch where it was
    assert F.cosine_similarity(pooled, backbone.token_grid(coarse), dim=1).mean().item() > 0.88
    assert finer.fingerprint != backbone.fingerprint


def test_unknown_names_and_sizes():
    with pytest.raises(ValueError, match="unknown backbone 'resnet'.*toy"):
        load_backbone("resnet")
    with pytest.raises(ValueError, match="=130.*8"):
        load_backbone("toy", image_size=130)
    with pytest.raises(ValueError, match="=225.*14"):
        load_backbone("dinov2_vits14_reg", image_size=225)
    for depth in (7, -1):
        with pytest.raises(ValueError, match=rf"backbone.depth \(={depth}\) does not fit toy, which has 6 transformer"):
            load_backbone("toy", depth=depth)
    with pytest.raises(ValueError, match="resnet50, which is no transformer: 0 takes"):
        load_backbone("resnet50", depth=1)


def test_a_transformer_without_a_cls_token_is_refused():
    from timm.models import VisionTransformer

    size = {"img_size": 16, "patch_size": 8, "embed_dim": 8, "depth": 1, "num_heads": 1}
    bare = VisionTransformer(**size, class_token=False, global_pool="avg", reg_tokens=2)
    with pytest.raises(ValueError, match="has no CLS token: choose"):
        FrozenBackbone("toy", bare, image_size=16)


def test_weights_that_do_not_fit(tmp_path):
    state = build_toy_vit().state_dict()
    cases = {
        "other keys": {"a": torch.zeros(2)},
        "other sizes": {**state, "norm.weight": torch.zeros(7)},
        "one missing": {k: v for k, v in state.items() if k != "norm.bias"},
    }
    for name, content in cases.items():
        path = tmp_path / f"{name}.safetensors"
        save_file({k: v.contiguous() for k, v in content.items()}, path)
        with pytest.raises(ValueError, match=f"{name}.safetensors does not fit backbone 'toy'"):
            load_backbone("toy", weights=path)
    with pytest.raises(ValueError, match="does not exist"):
        load_backbone("toy", weights=tmp_path / "none.pth")
    for name in ("text.safetensors", "text.pth", "empty.pth"):
        (tmp_path / name).write_text("" if name.startswith("empty") else "hello")
        with pytest.raises(ValueError, match=f"{name} cannot be read as weights .+: an official"):
            load_backbone("toy", weights=tmp_path / name)
    torch.save({"model": 3}, tmp_path / "number.pth")
    with pytest.raises(ValueError, match="number.pth cannot be read as weights"):
        load_backbone("toy", weights=tmp_path / "number.pth")


class Malicious:
    def __reduce__(self):
        return Path.touch, (Path("executed"),)


def test_a_pickle_is_never_executed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("weights.pth").write_bytes(pickle.dumps({"model": Malicious()}, protocol=2))
    with pytest.raises(ValueError, match="weights.pth"):
        load_backbone("toy", weights=Path("weights.pth"))
    torch.save({"model": Malicious()}, "zipped.pth")
    with pytest.raises(ValueError, match="zipped.pth"):
        load_backbone("toy", weights=Path("zipped.pth"))
    assert not Path("executed").exists()


def test_weights_survive_a_round_trip(tmp_path):
    torch.manual_seed(0)
    vit = build_toy_vit()
    save_weights(vit, tmp_path / "w.safetensors")
    loaded = load_backbone("toy", weights=tmp_path / "w.safetensors")
    half = {k: v.half().float() for k, v in vit.state_dict().items()}
    assert state_hash(loaded.network.state_dict()) == state_hash(half) == loaded.fingerprint["weights_sha256"]
    assert loaded.fingerprint != load_backbone("toy").fingerprint


def test_hash_sees_every_value():
    state = build_toy_vit().state_dict()
    changed = copy.deepcopy(state)
    changed["norm.bias"][3] += 1e-3
    assert state_hash(state) != state_hash(changed)


def test_dinov2_reads_a_file_in_the_official_layout(tmp_path):
    """Random weights under the official names, which differ from timm's in the registers and the mask token."""
    import timm

    torch.manual_seed(0)
    vit = timm.create_model(BACKBONES["dinov2_vits14_reg"].architecture, img_size=518, num_classes=0)
    official = {}
    for key, tensor in vit.state_dict().items():
        key = {"reg_token": "register_tokens"}.get(key, key)
        if key == "pos_embed":
            tensor = torch.cat([torch.zeros_like(tensor[:, :1]), tensor], dim=1)
        if key == "cls_token":
            tensor = torch.zeros_like(tensor)
        official[key] = tensor
    official["mask_token"] = torch.zeros(1, 384)
    torch.save(official, tmp_path / "dinov2.pth")
    backbone = load_backbone("dinov2_vits14_reg", weights=tmp_path / "dinov2.pth", image_size=224)
    assert (backbone.grid, backbone.width, backbone.n_prefix) == (16, 384, 5)
    tokens = backbone.tokens(backbone.preprocess([picture(300, 200)]))
    assert tokens.patches.shape == (1, 256, 384)
    torch.testing.assert_close(backbone.network.blocks[3].mlp.fc1.weight, vit.blocks[3].mlp.fc1.weight)


def test_a_failed_download_says_what_to_do(monkeypatch):
    import timm

    def refuse(*args, **kwargs):
        raise OSError("no route to host")

    monkeypatch.setattr(timm, "create_model", refuse)
    with pytest.raises(ValueError, match=r"could not be downloaded.*backbone\.weights=<file>"):
        load_backbone("dinov2_vits14_reg")


def test_the_card_of_the_embedded_backbone_is_true():
    card = json.loads(TOY_WEIGHTS.with_suffix(".json").read_text())
    assert card["sha256"] == file_hash(TOY_WEIGHTS)
    assert card["training"] == "renderer-supervised"
    assert TOY_WEIGHTS.stat().st_size < 8e6
    assert all(torch.isfinite(t.float()).all() for t in load_file(TOY_WEIGHTS).values())


def test_resnet_features_are_those_of_torchvision(tmp_path):
    """An official state dict gives the layer-4 map of torchvision's own network; the CLS token is its mean."""
    from torchvision.models import resnet50

    torch.manual_seed(0)
    official = resnet50().eval()
    save_file(official.state_dict(), tmp_path / "resnet50.safetensors")
    ours = load_backbone("resnet50", weights=tmp_path / "resnet50.safetensors", image_size=64)
    images = ours.preprocess([picture(seed=1), picture(seed=2)])
    layers = [m for name, m in official.named_children() if name not in ("avgpool", "fc")]
    with torch.no_grad():
        expected = torch.nn.Sequential(*layers)(images)
    tokens = ours.tokens(images)
    assert (ours.width, ours.grid) == (2048, 2)
    torch.testing.assert_close(ours.token_grid(tokens.patches), expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(tokens.cls, expected.mean((2, 3)), rtol=1e-4, atol=1e-4)
    with pytest.raises(ValueError, match=r"image_size .=100. must be a multiple of the patch size .=32"):
        load_backbone("resnet50", weights=tmp_path / "resnet50.safetensors", image_size=100)
    with pytest.raises(ValueError, match="does not fit backbone 'resnet50'"):
        load_backbone("resnet50", weights=TOY_WEIGHTS)
