"""Explanations by gradients that convolutional networks have, too: Grad-CAM and integrated gradients."""

import torch
from einops import reduce
from jaxtyping import Float, Int
from torch import Tensor

from qpm_lib.backbones import tapped
from qpm_lib.explain.base import Method
from qpm_lib.explain.target import Target


class GradCAM(Method):
    """relu(sum_d alpha_d A_d), alpha_d the mean over places of d f_c / d A_d (Selvaraju et al. 2017).

    A is the last feature map of a ResNet; of a transformer, as is usual there, the patches after the first LayerNorm of
    the last block.
    """

    def maps(
        self, pixels: Float[Tensor, "batch 3 size size"], targets: Int[Tensor, "batch"]
    ) -> Float[Tensor, "batch g g"]:
        """Maps (B, g, g), non-negative."""
        backbone = self.target.backbone
        tap = "blocks.-1.norm1" if backbone.is_transformer else "final"
        with tapped(backbone, tap) as taps, torch.enable_grad():
            score = self.target.score(self.target(pixels), targets)
        [slope] = torch.autograd.grad(score.sum(), taps[tap])
        features, slope = (self._places(tensor.detach()) for tensor in (taps[tap], slope))
        weights = slope.mean(1, keepdim=True)
        return (weights * features).sum(2).clamp_min(0).unflatten(1, (self.target.grid,) * 2)

    def _places(self, tensor: Tensor) -> Float[Tensor, "batch places dim"]:
        if tensor.ndim == 4:
            return tensor.flatten(2).transpose(1, 2)
        return tensor[:, self.target.backbone.n_prefix :]


class IntegratedGradients(Method):
    """Integrated gradients of pixels (Sundararajan, Taly and Yan 2017), by captum, added up over each patch.

    The path begins at the mean colour of the backbone's preprocessing. All pixels add up to the logit minus that of the
    mean colour.

    Parameters
    ----------
    steps : points on the path (Gauss-Legendre).
    """

    def __init__(self, target: Target, *, steps: int = 50, batch_size: int = 32) -> None:
        super().__init__(target, batch_size=batch_size)
        if steps < 1:
            raise ValueError(f"steps (={steps}) must be at least 1")
        self.steps = steps

    def maps(
        self, pixels: Float[Tensor, "batch 3 size size"], targets: Int[Tensor, "batch"]
    ) -> Float[Tensor, "batch g g"]:
        """Maps (B, g, g), signed."""
        from captum.attr import IntegratedGradients as Captum  # slow to import

        found = Captum(self.target).attribute(
            pixels, target=targets, n_steps=self.steps, internal_batch_size=max(self.batch_size, len(pixels))
        )
        grid = self.target.grid
        return reduce(found.detach(), "b c (y h) (x w) -> b y x", "sum", y=grid, x=grid).float()
