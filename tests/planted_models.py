"""Small backbones with random weights, classifiers of every kind on them, and one network whose reasons are planted."""

import numpy as np
import torch

from qpm_lib.backbones.frozen import FrozenBackbone
from qpm_lib.backbones.registry import BACKBONES
from qpm_lib.backbones.torchvision import import_torchvision
from qpm_lib.core.config import AdapterConfig
from qpm_lib.explain.ranking.method import new_decoder
from qpm_lib.model.dense import DenseModel, LinearProbe
from qpm_lib.model.qpm import DinoQPM
from qpm_lib.selection.result import Selection

N_CLASSES = 3


def small_backbone(name, *, depth=2, grid=4, width=48, seed=0):
    """The architecture of a backbone, small, with random weights that are large enough for a mistake to show."""
    import_torchvision()
    import timm

    entry, size = BACKBONES[name], grid * BACKBONES[name].patch_size
    torch.manual_seed(seed)
    if name == "resnet50":
        network = timm.create_model("resnet50", pretrained=False, num_classes=0)
        return FrozenBackbone(name, network, image_size=size)
    small = {"img_size": size, "depth": depth, "embed_dim": width, "num_heads": 3, "num_classes": 0}
    if name == "toy":
        network = timm.models.VisionTransformer(
            patch_size=8, reg_tokens=4, no_embed_class=True, init_values=1.0, **small
        )
    else:
        network = timm.create_model(entry.architecture, pretrained=False, **small)
    with torch.no_grad():
        for key, parameter in network.named_parameters():
            scale = 1.0 if "gamma" in key or ("norm" in key and "weight" in key) else 0.0
            parameter.copy_(scale + (0.3 if parameter.ndim == 1 else 0.15) * torch.randn_like(parameter))
    return FrozenBackbone(name, network, image_size=size)


def classifiers(width, *, seed=0):
    """A linear probe, a dense model, a QPM, and a baseline whose weights have signs, all untrained."""
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)

    def weight(*shape):
        return torch.randn(*shape, generator=generator)

    dense = DenseModel(width, N_CLASSES, AdapterConfig(hidden=16, n_layers=2, n_features=6))
    dense.train()
    for _ in range(3):
        dense(weight(8, 16, width), weight(8, width))  # running means and deviations of its norms
    assignment = np.array([[1, 1, 0, 0], [0, 1, 1, 0], [1, 0, 0, 1]], bool)
    chosen = Selection(np.array([0, 2, 3, 5]), assignment, 1.0, 1.0, 0.0, 0.0, "optimal")
    names = [f"class {c}" for c in range(N_CLASSES)]
    models = {"probe": LinearProbe(weight(N_CLASSES, width), weight(N_CLASSES)), "dense": dense}
    for name in ("qpm", "sldd"):
        model = DinoQPM.from_dense(dense, chosen, mean=torch.full((4,), 0.3), std=torch.ones(4), class_names=names)
        if name == "sldd":
            model.head.weight.copy_(model.head.weight * torch.tensor([[1.0, -0.5, 2.0, -1.0]]))
            model.head.bias.copy_(weight(N_CLASSES))
        models[name] = model
    return {name: model.eval() for name, model in models.items()}


def random_decoder(target, *, seed=0):
    """A decoder of rankings whose weights are large enough for every input to show."""
    torch.manual_seed(seed)
    decoder = new_decoder(target, 8)
    with torch.no_grad():
        for weight in decoder.parameters():
            weight.add_(0.2 * torch.randn_like(weight))
    return decoder


def rigged_backbone():
    """A transformer on 4 x 4 patches in which the only thing to be seen is brightness: dark patches have token
    (0, 0, 1, ...), bright ones (b, 0, 1, ...), everybody looks at the bright ones, and half of what they show is added.
    """
    import_torchvision()
    import timm

    network = timm.models.VisionTransformer(
        img_size=32, patch_size=8, embed_dim=8, depth=2, num_heads=1, num_classes=0, init_values=1.0
    )
    with torch.no_grad():
        for key, parameter in network.named_parameters():
            parameter.fill_(1.0 if "gamma" in key or ("norm" in key and "weight" in key) else 0.0)
        network.patch_embed.proj.weight[0] = 1 / (3 * 64)
        network.patch_embed.proj.bias[2] = 1.0
        network.cls_token[..., 3] = 1.0
        for block in network.blocks:
            block.attn.qkv.bias[0] = 1.0  # every query asks for brightness
            block.attn.qkv.weight[8, 0] = 3.0  # keys show it
            block.attn.qkv.weight[16, 0] = 1.0  # values, too
            block.attn.proj.weight[0, 0] = 0.5
    return FrozenBackbone("toy", network, image_size=32)


def brightness_models():
    """Classifiers on the rigged transformer: class 0 is brightness, class 1 the lack of it."""
    weight = torch.zeros(2, 8)
    weight[0, 0], weight[1, 0] = 1.0, -1.0
    dense = DenseModel(8, 2, AdapterConfig(n_layers=1, n_features=2))
    with torch.no_grad():
        dense.adapter.layers[0].weight.copy_(weight)
        dense.adapter.layers[0].bias.fill_(0.0)
        dense.head.weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0]]))
        dense.head.bias.zero_()
    chosen = Selection(np.array([0, 1]), np.eye(2, dtype=bool), 1.0, 1.0, 0.0, 0.0, "optimal")
    qpm = DinoQPM.from_dense(dense, chosen, mean=torch.zeros(2), std=torch.ones(2), class_names=["bright", "dark"])
    return {"probe": LinearProbe(weight, torch.zeros(2)), "dense": dense.eval(), "qpm": qpm.eval()}
