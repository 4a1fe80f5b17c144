"""Does a map depend on what the model has learned? (Adebayo et al. 2018, sanity checks for saliency maps)."""

import copy
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from PIL import Image
from torch import Tensor, nn

from qpm_lib.explain import ExplanationMethod, Target
from qpm_lib.metrics.agreement import rank_correlation


class Randomised(NamedTuple):
    """How much of a map is left while the model is made random from its head down.

    Attributes
    ----------
    stages : what was made random last: `none`, `head`, then blocks from the last to the first, `embedding`.
    spearman, ssim : (stages, B) rank correlation and structural similarity with the map of the trained model.
    """

    stages: tuple[str, ...]
    spearman: Float[np.ndarray, "stages batch"]
    ssim: Float[np.ndarray, "stages batch"]


def randomisation_check(
    build: Callable[[Target], ExplanationMethod],
    target: Target,
    images: Sequence[Image.Image],
    targets: Int[Tensor, "batch"],
    *,
    seed: int = 0,
    cascade: bool = True,
) -> Randomised:
    """Explain copies of a target whose weights are shuffled (each tensor among its own entries, which keeps their
    sizes), from the head down to the embedding of patches, cumulatively. (The final norm, the CLS token and the
    position embedding, and what comes before the stages of a ResNet, stay.)

    Without `cascade` only the last stage is looked at, in which everything is shuffled.

    A map that stays the same does not explain the model. (The published check draws new initial weights; shuffling is
    ours, because it is defined for every layer.)
    """
    twin = Target(copy.deepcopy(target.model), copy.deepcopy(target.backbone))
    generator = torch.Generator().manual_seed(seed)
    blocks = twin.backbone.blocks
    parts = [("head", twin.model)]
    parts += [(f"block {i}", blocks[i]) for i in range(len(blocks) - 1, -1, -1)]
    if twin.backbone.is_transformer:
        parts += [("embedding", twin.backbone.network.patch_embed)]
    first = build(twin)(images, targets)
    maps, last = [first], parts[-1][0]
    for name, part in parts:
        _shuffle(part, generator)
        if cascade or name == last:
            maps.append(build(twin)(images, targets))
    scores = [[np.array([f(a, b) for a, b in zip(m.numpy(), first.numpy(), strict=True)]) for m in maps]
              for f in (_spearman, structural_similarity)]  # fmt: skip
    names = [name for name, _ in parts] if cascade else [last]
    return Randomised(("none", *names), *(np.stack(rows) for rows in scores))


def _shuffle(part: nn.Module, generator: torch.Generator) -> None:
    """Shuffle the entries of every weight and of buffers that hold weights."""
    with torch.no_grad():
        for tensor in part.state_dict().values():
            if tensor.is_floating_point() and tensor.numel() > 1:
                order = torch.randperm(tensor.numel(), generator=generator).to(tensor.device)
                tensor.copy_(tensor.flatten()[order].view_as(tensor))


def _spearman(a: Float[np.ndarray, "g g"], b: Float[np.ndarray, "g g"]) -> float:
    return float(rank_correlation(a.reshape(1, -1), b.ravel())[0])


def structural_similarity(a: Float[np.ndarray, "g g"], b: Float[np.ndarray, "g g"], *, window: int = 7) -> float:
    """SSIM of two maps, each scaled to 0..1 first: mean over all places, uniform window (Wang et al. 2004); 1 for equal
    maps, 0 where one of the two is constant.
    """
    from skimage.metrics import structural_similarity as similarity  # slow to import

    spans = [float(m.max() - m.min()) for m in (a, b)]
    if min(spans) <= 0:
        return float(max(spans) <= 0)
    a, b = ((m.astype(float) - m.min()) / span for m, span in zip((a, b), spans, strict=True))
    size = min(window, min(a.shape) // 2 * 2 - 1)
    options = {"win_size": size, "data_range": 1, "use_sample_covariance": False, "full": True}
    return float(similarity(a, b, **options)[1].mean())
