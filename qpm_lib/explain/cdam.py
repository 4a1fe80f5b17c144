"""Class-discriminative attention maps (CDAM): Brocki, Binda and Chung, arXiv 2312.02364."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from qpm_lib.backbones import tapped
from qpm_lib.explain.base import Method
from qpm_lib.explain.target import Rest, Target

_TAPS = {"norm1": "blocks.-1.norm1", "block_input": "blocks.-1.input", "final_norm": "final"}


class CDAM(Method):
    """S_i = sum_j T_ij d f_c / d T_ij, with T (T, D) the tokens that enter the attention of the last block.

    Signed: above zero is evidence for the class, below zero against it. CLS token and registers are dropped.

    Parameters
    ----------
    tap : where T is taken: `norm1` (as published: what comes out of the first LayerNorm of the last block),
        `block_input` or `final_norm`. None takes norm1 for classifiers that read the CLS token, and final_norm for
        those that pool patches: there the residual stream goes past norm1, so what the published tap sees is only
        what patches tell each other in the last block. (The last two taps, and that choice, are ours.)

    Raises
    ------
    ValueError : for another tap, or a backbone without tokens.
    """

    needs_transformer = True

    def __init__(self, target: Target, *, tap: str | None = None, batch_size: int = 32) -> None:
        super().__init__(target, batch_size=batch_size)
        tap = tap or ("norm1" if target.reads_cls else "final_norm")
        if tap not in _TAPS:
            raise ValueError(f"tap (={tap!r}) must be one of {', '.join(_TAPS)}")
        self.tap = _TAPS[tap]

    def maps(
        self, pixels: Float[Tensor, "batch 3 size size"], targets: Int[Tensor, "batch"]
    ) -> Float[Tensor, "batch g g"]:
        """Maps (B, g, g)."""
        with tapped(self.target.backbone, self.tap) as taps, torch.enable_grad():
            score = self.target.score(self.target(pixels), targets)
        tokens = taps[self.tap]
        [slope] = torch.autograd.grad(score.sum(), tokens)
        return self.target.on_grid((tokens.detach() * slope).sum(2))


class _Averaged(CDAM):
    """CDAM over several versions of the tokens at the tap; only what comes after it runs again.

    Parameters
    ----------
    steps : m, the number of versions.
    """

    def __init__(self, target: Target, *, steps: int = 50, tap: str | None = None, batch_size: int = 32) -> None:
        super().__init__(target, tap=tap, batch_size=batch_size)
        if steps < 1:
            raise ValueError(f"steps (={steps}) must be at least 1")
        self.steps = steps

    def _counts(self, pictures: int) -> list[int]:
        """How many versions of each picture fit into one batch, until there are m of them."""
        most = max(1, self.batch_size // pictures)
        return [min(most, self.steps - start) for start in range(0, self.steps, most)]

    def _slope(self, rest: Rest, versions: Tensor, targets: Tensor) -> Tensor:
        """Gradient of the score at versions (k, B, T, D) of the tokens."""
        tokens = versions.flatten(0, 1).requires_grad_()
        with torch.enable_grad():
            score = self.target.score(rest(tokens), targets.repeat(len(versions)))
        return torch.autograd.grad(score.sum(), tokens)[0].view_as(versions)


class SmoothCDAM(_Averaged):
    """Mean of m maps with Gaussian noise on the tokens at the tap, sigma = 0.05 (max - min) of a picture's tokens.

    The same noise for every picture, from the seed.
    """

    def __init__(
        self,
        target: Target,
        *,
        steps: int = 50,
        noise: float = 0.05,
        seed: int = 0,
        tap: str | None = None,
        batch_size: int = 32,
    ) -> None:
        super().__init__(target, steps=steps, tap=tap, batch_size=batch_size)
        self.noise, self.seed = noise, seed

    def maps(
        self, pixels: Float[Tensor, "batch 3 size size"], targets: Int[Tensor, "batch"]
    ) -> Float[Tensor, "batch g g"]:
        """Maps (B, g, g)."""
        rest = self.target.split(pixels, self.tap)
        tokens = rest.activation
        sigma = self.noise * (tokens.amax((1, 2), keepdim=True) - tokens.amin((1, 2), keepdim=True))
        generator = torch.Generator().manual_seed(self.seed)
        total = torch.zeros(tokens.shape[:2], device=tokens.device)
        for count in self._counts(len(pixels)):
            drawn = [torch.randn((1, *tokens.shape[1:]), generator=generator) for _ in range(count)]
            noisy = tokens + sigma * torch.stack(drawn).to(tokens.device)
            total += (noisy * self._slope(rest, noisy, targets)).sum((0, 3))
        return self.target.on_grid(total / self.steps)


class IntegratedCDAM(_Averaged):
    """S_i = sum_j T_ij mean_k d f_c / d T_ij at alpha_k T, on the straight path from zero, at m midpoints.

    Only the tokens at the tap are scaled. Over all tokens it adds up to f(T) - f(0), which `attributions` shows.
    (Midpoints, and that the rest of the block stays, are ours.) At `block_input` the next LayerNorm forgets the length
    of the tokens, so the score jumps at the beginning of the path and no sum over points adds up: that is refused.
    """

    def __init__(self, target: Target, *, steps: int = 50, tap: str | None = None, batch_size: int = 32) -> None:
        if tap == "block_input":
            raise ValueError(
                "tap (='block_input') is followed by a LayerNorm, behind which the score jumps at zero: "
                "choose norm1 or final_norm"
            )
        super().__init__(target, steps=steps, tap=tap, batch_size=batch_size)

    def attributions(
        self, pixels: Float[Tensor, "batch 3 size size"], targets: Int[Tensor, "batch"]
    ) -> Float[Tensor, "batch tokens"]:
        """Values of all tokens, CLS token and registers first."""
        rest = self.target.split(pixels, self.tap)
        tokens = rest.activation
        alphas = (torch.arange(self.steps, device=tokens.device) + 0.5) / self.steps
        total = torch.zeros_like(tokens)
        for alpha in alphas.split(self._counts(len(pixels))):
            total += self._slope(rest, alpha[:, None, None, None] * tokens, targets).sum(0)
        return (tokens * total / self.steps).sum(2)

    def maps(
        self, pixels: Float[Tensor, "batch 3 size size"], targets: Int[Tensor, "batch"]
    ) -> Float[Tensor, "batch g g"]:
        """Maps (B, g, g)."""
        return self.target.on_grid(self.attributions(pixels, targets))
