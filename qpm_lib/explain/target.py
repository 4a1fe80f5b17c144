"""What is explained: one differentiable function from pictures to class scores, whatever classifier it is."""

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float, Int
from PIL import Image
from torch import Tensor, nn

from qpm_lib.backbones import FrozenBackbone, Tokens, locate, tapped
from qpm_lib.data import all_rgb
from qpm_lib.model import Classifier, LinearProbe, Output


class Target:
    """A classifier on its frozen backbone as one function, pictures to logits, with gradients.

    Any `model.Classifier` will do: the linear probe, the dense model, SLDD, Q-SENN, QPM. It is put into evaluation
    mode; weights of it and of the backbone stay as they are. Everything is computed in float32, because explanations
    are gradients and differences.

    Attributes
    ----------
    grid : g, maps are (g, g). n_classes : C. device : where pictures are computed.
    """

    def __init__(self, model: Classifier, backbone: FrozenBackbone) -> None:
        if isinstance(model, nn.Module):
            model.eval()
        self.model, self.backbone = model, backbone
        self.grid, self.n_classes = backbone.grid, len(model.class_weight)

    @property
    def device(self) -> torch.device:
        """Device of the backbone."""
        return next(self.backbone.network.parameters()).device

    def pixels(self, images: Sequence[Image.Image]) -> Float[Tensor, "batch 3 size size"]:
        """Pictures of any size as the backbone reads them.

        Raises
        ------
        ValueError : for no pictures, or something that is no picture.
        """
        return self.backbone.preprocess(all_rgb(images)).to(self.device)

    def classes(self, targets: Int[Tensor, "batch"] | Sequence[int], count: int) -> Int[Tensor, "batch"]:
        """Class numbers, checked, on the device.

        Raises
        ------
        ValueError : for another number of them than pictures, no class numbers, or a class that does not exist.
        """
        targets = torch.as_tensor(targets)
        if targets.dtype not in (torch.int16, torch.int32, torch.int64) or targets.shape != (count,):
            raise ValueError(f"targets (={targets.tolist()}) must hold one class number for each of {count} pictures")
        outside = targets[(targets < 0) | (targets >= self.n_classes)]
        if len(outside):
            raise ValueError(
                f"target class (={int(outside[0])}) is out of range: choose from 0 to {self.n_classes - 1}"
            )
        return targets.long().to(self.device)

    def __call__(self, pixels: Float[Tensor, "batch 3 size size"]) -> Float[Tensor, "batch classes"]:
        """Logits of pictures from `pixels`."""
        return self.read(self.backbone(pixels))

    def read(self, tokens: Tokens) -> Float[Tensor, "batch classes"]:
        """Logits of the tokens at the end of the backbone."""
        return self.output(tokens).logits.float().to(self.device)

    def output(self, tokens: Tokens) -> Output:
        """All that the classifier gives for the tokens at the end of the backbone, on its own device."""
        return self.model(tokens.patches.to(self.model.device), tokens.cls.to(self.model.device))

    def score(self, logits: Float[Tensor, "batch classes"], targets: Int[Tensor, "batch"]) -> Float[Tensor, "batch"]:
        """Logit f_c of the target class of each picture."""
        return logits.gather(1, targets[:, None])[:, 0]

    @cached_property
    def reads_cls(self) -> bool:
        """Whether scores depend on the CLS token (and not on the patches alone): found out by its gradient."""
        generator = torch.Generator().manual_seed(0)
        patches = torch.randn(8, self.grid**2, self.backbone.width, generator=generator).to(self.device)
        cls = torch.randn(8, self.backbone.width, generator=generator).to(self.device).requires_grad_()
        with torch.enable_grad():
            scores = self.read(Tokens(patches, cls)).square().sum()
            if not scores.requires_grad:
                return False
            [slope] = torch.autograd.grad(scores, cls, allow_unused=True)
        return slope is not None and bool(slope.any())

    def on_grid(self, values: Float[Tensor, "batch tokens"]) -> Float[Tensor, "batch g g"]:
        """Values of all tokens of a transformer as maps, without those of CLS token and registers."""
        return values[:, self.backbone.n_prefix :].unflatten(1, (self.grid, self.grid))

    @torch.no_grad()
    def split(self, pixels: Float[Tensor, "batch 3 size size"], tap: str) -> "Rest":
        """Cut the function at a tap of a transformer (see `backbones.tapped`): the activation there, and the rest.

        Raises
        ------
        ValueError : for a tap that there is not, or that the rest does not follow from (attention, output).
        """
        number, part = locate(self.backbone, tap)
        if part in ("attention", "output") or not self.backbone.is_transformer:
            raise ValueError(f"tap {tap!r}: cut a transformer at final, blocks.I.input or blocks.I.norm1")
        calls: list[Mapping[str, Any]] = []
        hooks = [
            block.register_forward_pre_hook(lambda _, __, named: calls.append(named), with_kwargs=True)
            for block in self.backbone.blocks[number:]
        ]
        stream = f"blocks.{number}.input" if part == "norm1" else tap
        try:
            with tapped(self.backbone, tap, stream) as taps:
                self.backbone(pixels)
        finally:
            for hook in hooks:
                hook.remove()
        return Rest(self, taps[tap], taps[stream], calls, number, part)


class Rest:
    """What a target still does behind a tap, as a function of the activation there: the blocks before it do not run
    again.

    Attributes
    ----------
    activation : (B, T, D) of the pictures it was cut at.
    """

    def __init__(
        self, target: Target, activation: Tensor, stream: Tensor, calls: list[Mapping[str, Any]], start: int, part: str
    ) -> None:
        self.target, self.activation, self.stream = target, activation, stream
        self.calls, self.start, self.part = calls, start, part

    def __call__(
        self, activation: Float[Tensor, "rows tokens dim"], kept: Int[Tensor, "rows n"] | None = None
    ) -> Float[Tensor, "rows classes"]:
        """Logits for other activations, m for each picture in turn: rows are picture 0, 1, ... B - 1, 0, 1, ...

        At `norm1` only what enters attention is replaced; the residual stream stays that of the picture.

        Parameters
        ----------
        kept : numbers of the patches that are left, where tokens were taken away (CLS token and registers stay).
        """
        backbone, x, first = self.target.backbone, activation, self.start
        blocks = backbone.blocks
        for number, named in zip(range(first, len(blocks)), self.calls, strict=True):
            if kept is not None and named.get("rope") is not None:
                named = {**named, "rope": named["rope"][kept][:, None]}
            if number == first and self.part == "norm1":
                hook = blocks[number].norm1.register_forward_hook(lambda _, __, ___: activation)
                try:
                    x = blocks[number](self.stream.repeat(len(x) // len(self.stream), 1, 1), **named)
                finally:
                    hook.remove()
            else:
                x = blocks[number](x, **named)
        return self.target.read(backbone.split(x if self.part == "final" else backbone.network.norm(x)))


def concept_target(backbone: FrozenBackbone, images: Sequence[Image.Image], *, batch_size: int = 32) -> Target:
    """A target with one class, a concept that a few pictures show: the dot product z . v of a picture's CLS token z
    (after the final norm) with the mean v of theirs (Brocki, Binda and Chung, arXiv 2312.02364).

    Raises
    ------
    ValueError : for no pictures.
    """
    if not len(images):
        raise ValueError("a concept needs pictures that show it: none were given")
    with torch.no_grad():
        parts = [images[start : start + batch_size] for start in range(0, len(images), batch_size)]
        found = [backbone(backbone.preprocess(all_rgb(part))).cls for part in parts]
    mean = torch.cat(found).mean(0, keepdim=True)
    return Target(LinearProbe(mean.cpu(), torch.zeros(1)).to(mean.device), backbone)
