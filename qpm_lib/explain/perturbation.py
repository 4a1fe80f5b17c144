"""Explanations by trying: what happens to the score when something is taken away. They need no gradient."""

from collections.abc import Sequence
from functools import cached_property

import torch
from jaxtyping import Float, Int
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from qpm_lib.core import progress
from qpm_lib.explain.base import Method
from qpm_lib.explain.target import Target


class _Tried(Method):
    """Every picture is tried once for all classes, also where it is asked about several of them."""

    def some(self, images: Sequence[Image.Image], targets: Int[Tensor, "batch"]) -> Float[Tensor, "batch g g"]:
        """Maps of one batch."""
        different = list({id(image): image for image in images}.values())
        row = {id(image): i for i, image in enumerate(different)}
        pixels = self.target.pixels(different)
        maps = torch.cat([self.try_one(one[None]) for one in pixels])
        return maps[[row[id(image)] for image in images], targets.cpu()]

    def try_one(self, pixels: Float[Tensor, "1 3 size size"]) -> Float[Tensor, "1 classes g g"]:
        """Maps of one picture for all classes, on the CPU."""
        raise NotImplementedError


class TokenAblation(_Tried):
    """S_i = f_c(x) - f_c(x without token i): each patch token is deleted after the position embedding, one at a time.

    Where the classifier pools patches, it pools those that are left.
    """

    needs_transformer = True

    @torch.no_grad()
    def try_one(self, pixels: Float[Tensor, "1 3 size size"]) -> Float[Tensor, "1 classes g g"]:
        """Maps of one picture for all classes, on the CPU."""
        rest = self.target.split(pixels, "blocks.0.input")
        tokens, first, count = rest.activation[0], self.target.backbone.n_prefix, self.target.grid**2
        whole, without = rest(tokens[None]), []
        others = torch.arange(count - 1, device=tokens.device)
        for gone in progress(torch.arange(count, device=tokens.device).split(self.batch_size), "tokens taken away"):
            kept = others + (others >= gone[:, None])
            prefix = torch.arange(first, device=tokens.device).expand(len(gone), -1)
            without.append(rest(tokens[torch.cat([prefix, kept + first], 1)], kept))
        drops = (whole - torch.cat(without)).T
        return drops.unflatten(1, (self.target.grid,) * 2)[None].cpu()


class RISE(_Tried):
    """Mean of random masks, weighted with the probability of the class under each (Petsiuk, Das and Saenko 2018).

    Masks are coarse grids of zeros and ones, made larger bilinearly and shifted at random (a row and column of cells
    more than needed is drawn, so that every shift has its own: ours); what is masked gets the mean colour of the
    preprocessing. The same masks for every picture, from the seed.

    Parameters
    ----------
    masks : how many. cells : s, side of the coarse grid. share : probability of a one.
    """

    def __init__(
        self,
        target: Target,
        *,
        masks: int = 500,
        cells: int = 7,
        share: float = 0.5,
        seed: int = 0,
        batch_size: int = 32,
    ) -> None:
        super().__init__(target, batch_size=batch_size)
        if target.n_classes < 2:
            raise ValueError("RISE weighs masks with probabilities, and a concept alone has none: choose cdam")
        if masks < 1 or cells < 1 or not 0 < share < 1:
            raise ValueError(f"masks (={masks}) and cells (={cells}) must be at least 1, share (={share}) in (0, 1)")
        self.masks, self.cells, self.share, self.seed = masks, cells, share, seed

    @cached_property
    def _drawn(self) -> Float[Tensor, "masks size size"]:
        generator, size = torch.Generator().manual_seed(self.seed), self.target.backbone.image_size
        cell = -(-size // self.cells)
        ones = torch.rand(self.masks, 1, self.cells + 1, self.cells + 1, generator=generator) < self.share
        large = F.interpolate(ones.float(), size=(self.cells + 1) * cell, mode="bilinear", align_corners=False)[:, 0]
        shifts = torch.randint(0, cell, (self.masks, 2), generator=generator).tolist()
        return torch.stack([mask[y : y + size, x : x + size] for mask, (y, x) in zip(large, shifts, strict=True)])

    @torch.no_grad()
    def try_one(self, pixels: Float[Tensor, "1 3 size size"]) -> Float[Tensor, "1 classes g g"]:
        """Maps of one picture for all classes, on the CPU."""
        grid, total = self.target.grid, 0
        for masks in progress(self._drawn.split(self.batch_size), "random masks"):
            chances = self.target(pixels * masks[:, None].to(pixels.device)).softmax(1).cpu()
            total = total + torch.einsum("m c, m y x -> c y x", chances, F.adaptive_avg_pool2d(masks, grid))
        return (total / (self.masks * self.share))[None]
