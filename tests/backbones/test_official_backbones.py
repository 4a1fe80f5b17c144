"""Real backbones against the official forward passes, written out here, on random weights in official key layout."""

import math

import pytest
import torch
from torch.nn import functional as F

from qpm_lib.backbones.frozen import load_backbone
from qpm_lib.backbones.registry import BACKBONES
from qpm_lib.backbones.torchvision import import_torchvision
from qpm_lib.backbones.weights import weights_at_hand


def random_state(width, patch, tokens, *, extra, scale=True, gated=False, depth=12):
    """Weights under the names of the official files; large enough values that a mistake shows."""
    generator = torch.Generator().manual_seed(width + patch)

    def draw(*shape, std=0.05):
        return std * torch.randn(*shape, generator=generator)

    state = {
        "cls_token": draw(1, 1, width, std=0.5),
        "patch_embed.proj.weight": draw(width, 3, patch, patch),
        "patch_embed.proj.bias": draw(width),
        "norm.weight": 1 + draw(width),
        "norm.bias": draw(width),
        **{name: draw(*shape, std=0.5) for name, shape in extra.items()},
    }
    if tokens:
        state["pos_embed"] = draw(1, tokens, width, std=0.5)
    for i in range(depth):
        block = {
            "norm1.weight": 1 + draw(width),
            "norm1.bias": draw(width),
            "norm2.weight": 1 + draw(width),
            "norm2.bias": draw(width),
            "attn.qkv.weight": draw(3 * width, width),
            "attn.qkv.bias": draw(3 * width),
            "attn.proj.weight": draw(width, width),
            "attn.proj.bias": draw(width),
        }
        if gated:
            hidden = 4 * width
            block |= {f"mlp.{n}.weight": draw(hidden, width) for n in ("w1", "w2")} | {
                f"mlp.{n}.bias": draw(hidden) for n in ("w1", "w2")
            }
            block |= {"mlp.w3.weight": draw(width, hidden), "mlp.w3.bias": draw(width)}
        else:
            block |= {"mlp.fc1.weight": draw(4 * width, width), "mlp.fc1.bias": draw(4 * width)}
            block |= {"mlp.fc2.weight": draw(width, 4 * width), "mlp.fc2.bias": draw(width)}
        if scale:
            block |= {"ls1.gamma": 0.5 + draw(width), "ls2.gamma": 0.5 + draw(width)}
        state |= {f"blocks.{i}.{name}": tensor for name, tensor in block.items()}
    return state


def official_positions(embedding, grid, *, antialias, offset):
    """`interpolate_pos_encoding` of DINO (offset 0.1), DINOv2 (offset 0.1) and DINOv2 with registers (antialiased,
    to a size).
    """
    n = embedding.shape[1] - 1
    m = int(math.sqrt(n))
    if m == grid:
        return embedding
    kwargs = {"scale_factor": (float(grid + offset) / m,) * 2} if offset else {"size": (grid, grid)}
    patches = embedding[:, 1:].reshape(1, m, m, -1).permute(0, 3, 1, 2)
    patches = F.interpolate(patches, mode="bicubic", antialias=antialias, **kwargs)
    return torch.cat([embedding[:, :1], patches.permute(0, 2, 3, 1).reshape(1, grid * grid, -1)], 1)


def rotary(grid, head_width):
    """Sine and cosine of DINOv3: patch centres from -1 to 1, periods from 1 to 100, rows then columns."""
    periods = 100 ** (2 * torch.arange(head_width // 4) / (head_width // 2))
    centres = 2 * (torch.arange(grid) + 0.5) / grid - 1
    coordinates = torch.stack(torch.meshgrid(centres, centres, indexing="ij"), -1).flatten(0, 1)
    angles = (2 * math.pi * coordinates[:, :, None] / periods).flatten(1).tile(2)
    return angles.sin(), angles.cos()


def official_tokens(state, images, *, patch, heads, prefix, positions=None, sin_cos=None, eps=1e-6, key_bias=True):
    """Tokens after the final norm: CLS, registers, patches."""
    width = state["cls_token"].shape[-1]
    x = (
        F.conv2d(images, state["patch_embed.proj.weight"], state["patch_embed.proj.bias"], stride=patch)
        .flatten(2)
        .transpose(1, 2)
    )
    x = torch.cat([state["cls_token"].expand(len(x), -1, -1), x], 1)
    if positions is not None:
        x = x + positions
    if prefix is not None:
        x = torch.cat([x[:, :1], prefix.expand(len(x), -1, -1), x[:, 1:]], 1)
    n_prefix = 1 + (0 if prefix is None else prefix.shape[1])
    for i in range(12):
        block = {k.removeprefix(f"blocks.{i}."): v for k, v in state.items() if k.startswith(f"blocks.{i}.")}
        bias = block["attn.qkv.bias"].clone()
        if not key_bias:
            bias[width : 2 * width] = 0
        y = F.layer_norm(x, (width,), block["norm1.weight"], block["norm1.bias"], eps)
        q, k, v = F.linear(y, block["attn.qkv.weight"], bias).unflatten(-1, (3, heads, -1)).permute(2, 0, 3, 1, 4)
        if sin_cos is not None:
            sin, cos = sin_cos

            def turn(t, sin=sin, cos=cos):
                half = torch.cat([-t[..., t.shape[-1] // 2 :], t[..., : t.shape[-1] // 2]], -1)
                return torch.cat([t[..., :n_prefix, :], t[..., n_prefix:, :] * cos + half[..., n_prefix:, :] * sin], -2)

            q, k = turn(q), turn(k)
        y = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        y = F.linear(y, block["attn.proj.weight"], block["attn.proj.bias"])
        x = x + y * block.get("ls1.gamma", 1.0)
        y = F.layer_norm(x, (width,), block["norm2.weight"], block["norm2.bias"], eps)
        if "mlp.w1.weight" in block:
            y = F.silu(F.linear(y, block["mlp.w1.weight"], block["mlp.w1.bias"])) * F.linear(
                y, block["mlp.w2.weight"], block["mlp.w2.bias"]
            )
            y = F.linear(y, block["mlp.w3.weight"], block["mlp.w3.bias"])
        else:
            y = F.gelu(F.linear(y, block["mlp.fc1.weight"], block["mlp.fc1.bias"]))
            y = F.linear(y, block["mlp.fc2.weight"], block["mlp.fc2.bias"])
        x = x + y * block.get("ls2.gamma", 1.0)
    return F.layer_norm(x, (width,), state["norm.weight"], state["norm.bias"], eps), n_prefix


def check(name, state, size, tmp_path, **options):
    path = tmp_path / "official.pth"
    torch.save(state, path)
    backbone = load_backbone(name, weights=path, image_size=size)
    images = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected, n_prefix = official_tokens(state, images, **options)
    tokens = backbone.tokens(images)
    torch.testing.assert_close(tokens.cls, expected[:, 0], atol=2e-4, rtol=2e-4)
    torch.testing.assert_close(tokens.patches, expected[:, n_prefix:], atol=2e-4, rtol=2e-4)


@pytest.mark.parametrize(("name", "size"), [("dino_vits16", 224), ("dino_vits16", 160), ("dino_vits8", 112)])
def test_dino(name, size, tmp_path):
    patch = BACKBONES[name].patch_size
    state = random_state(384, patch, 1 + (224 // patch) ** 2, extra={}, scale=False)
    positions = official_positions(state["pos_embed"], size // patch, antialias=False, offset=0.1)
    check(name, state, size, tmp_path, patch=patch, heads=6, prefix=None, positions=positions)


@pytest.mark.parametrize("size", [224, 126, 518])
def test_dinov2_without_registers(size, tmp_path):
    """The case in which timm's own way of resizing the position embedding differs from the official one."""
    state = random_state(384, 14, 1370, extra={"mask_token": (1, 384)})
    positions = official_positions(state["pos_embed"], size // 14, antialias=False, offset=0.1)
    check("dinov2_vits14", state, size, tmp_path, patch=14, heads=6, prefix=None, positions=positions)


@pytest.mark.parametrize("size", [224, 126])
def test_dinov2_with_registers(size, tmp_path):
    state = random_state(384, 14, 1370, extra={"mask_token": (1, 384), "register_tokens": (1, 4, 384)})
    positions = official_positions(state["pos_embed"], size // 14, antialias=True, offset=0.0)
    check(
        "dinov2_vits14_reg",
        state,
        size,
        tmp_path,
        patch=14,
        heads=6,
        prefix=state["register_tokens"],
        positions=positions,
    )


@pytest.mark.parametrize("size", [224, 160])
def test_dinov3(size, tmp_path):
    state = random_state(384, 16, 0, extra={"mask_token": (1, 384), "storage_tokens": (1, 4, 384)})
    mask = torch.ones(3 * 384)
    mask[384:768] = 0
    full = state | {"rope_embed.periods": torch.ones(16)} | {f"blocks.{i}.attn.qkv.bias_mask": mask for i in range(12)}
    sin_cos = rotary(size // 16, 64)
    options = {
        "patch": 16,
        "heads": 6,
        "prefix": state["storage_tokens"],
        "sin_cos": sin_cos,
        "eps": 1e-5,
        "key_bias": False,
    }
    check("dinov3_vits16", full, size, tmp_path, **options)


@pytest.mark.parametrize("name", [n for n in BACKBONES if n != "toy"])
def test_the_registry_agrees_with_the_architecture(name):
    """Width, registers and size of every entry, without making the weights."""
    import_torchvision()
    import timm

    entry = BACKBONES[name]
    with torch.device("meta"):
        network = timm.create_model(entry.architecture, pretrained=False, num_classes=0)
    assert network.num_features == entry.width
    assert sum(p.numel() for p in network.parameters()) / 1e6 == pytest.approx(entry.parameters, rel=0.02)
    assert len(getattr(network, "blocks", ())) == entry.blocks
    if name != "resnet50":
        assert network.patch_embed.patch_size == (entry.patch_size,) * 2
        assert network.num_prefix_tokens == 1 + entry.registers


def test_weights_of_another_architecture_are_refused(tmp_path):
    torch.save(random_state(384, 16, 197, extra={}, scale=False), tmp_path / "dino.pth")
    for name in ("dinov2_vits14", "dinov3_vits16", "dino_vitb16", "dino_vits8"):
        with pytest.raises(ValueError, match=f"does not fit backbone '{name}'"):
            load_backbone(name, weights=tmp_path / "dino.pth")


def test_weights_at_hand(monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    assert weights_at_hand("toy") == "embedded"
    assert weights_at_hand("dinov2_vits14") == "to download"
