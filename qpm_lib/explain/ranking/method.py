"""Learned importance ranking as an explanation method: one pass, one dense map for any class."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from qpm_lib.backbones import state_hash
from qpm_lib.core import content_hash, progress, read_object
from qpm_lib.explain.base import Method
from qpm_lib.explain.ranking.decoder import Decoder
from qpm_lib.explain.ranking.objective import areas, draw_fractions, hard_areas, reference, standardised
from qpm_lib.explain.ranking.reading import several_depths, token_evidence
from qpm_lib.explain.ranking.sorting import soft_sort
from qpm_lib.explain.target import Target
from qpm_lib.model import load_module, save_module

log = logging.getLogger(__name__)
_LOOK_EVERY = 5  # steps of refinement
SPREAD = 6.0  # standard deviation of the scores of a picture when they are sorted softly, beside anchors in [0, 1]


class LearnedRanking(Method):
    """An explainer trained on deletion and insertion themselves (Schinagl et al. 2026, *Learn to Rank*,
    arXiv 2604.05819), for the target that it was trained on.

    Maps have no sign and no scale: what counts is their order. `train_ranking` makes one.

    Parameters
    ----------
    explainer : the folder of a trained one, or its decoder. seen : classes that it was trained to explain; None is all.

    Attributes
    ----------
    history : step, deletion and insertion (soft) of each step of its training.

    Raises
    ------
    ValueError : without a trained explainer, for one of another model, backbone or grid, or a target without two
        classes or gradients.
    """

    def __init__(
        self,
        target: Target,
        *,
        explainer: Path | str | Decoder | None = None,
        seen: Sequence[int] | None = None,
        batch_size: int = 32,
    ) -> None:
        super().__init__(target, batch_size=batch_size)
        if explainer is None:
            raise ValueError(
                "ranking needs a trained explainer: run chapter 10, or explain.train_ranking, and give its folder as "
                "explainer="
            )
        if target.n_classes < 2:
            raise ValueError("ranking is trained on probabilities, and a concept alone has none: choose cdam")
        self.seen, self.history = seen, []
        if isinstance(explainer, Decoder):
            self.decoder = explainer
        else:
            self.decoder = self._load(Path(explainer))
        self.decoder.to(target.device)

    def __call__(self, images: Sequence[Image.Image], targets: Int[Tensor, "batch"]) -> Float[Tensor, "batch g g"]:
        """Maps (B, g, g), on the CPU.

        Raises
        ------
        ValueError : for a class that was never explained in training.
        """
        self._check_seen(targets)
        return super().__call__(images, targets)

    def maps(
        self, pixels: Float[Tensor, "batch 3 size size"], targets: Int[Tensor, "batch"]
    ) -> Float[Tensor, "batch g g"]:
        """Means of the dense map over patches, from 0 on, of standard deviation 1."""
        return _from_zero(F.adaptive_avg_pool2d(self.draw(pixels, targets), self.target.grid))

    def dense(self, images: Sequence[Image.Image], targets: Int[Tensor, "batch"]) -> Float[Tensor, "batch size size"]:
        """Maps at the resolution of the pixels that the backbone reads, on the CPU."""
        self._check_seen(targets)
        targets = self.target.classes(targets, len(images))
        parts = range(0, len(images), self.batch_size)
        found = [
            self.draw(self.target.pixels(images[i : i + self.batch_size]), targets[i : i + self.batch_size]).cpu()
            for i in parts
        ]
        return torch.cat(found)

    @torch.no_grad()
    def draw(
        self, pixels: Float[Tensor, "batch 3 size size"], targets: Int[Tensor, "batch"]
    ) -> Float[Tensor, "batch size size"]:
        """Dense maps of one batch."""
        self.decoder.eval()
        return self.decoder(*self.look(pixels, targets), pixels, targets)

    def look(
        self, pixels: Float[Tensor, "batch 3 size size"], targets: Int[Tensor, "batch"]
    ) -> tuple[list[Tensor], Tensor, Tensor]:
        """What the decoder reads: patch tokens of several depths, the CLS token, and the evidence of each token."""
        tokens, last = several_depths(self.target.backbone, pixels)
        return tokens, last.cls.float(), token_evidence(self.target, last, targets)

    def refine(
        self,
        images: Sequence[Image.Image],
        targets: Int[Tensor, "batch"],
        *,
        steps: int = 10,
        lr: float = 0.3,
        fractions: int = 8,
        levels: int = 32,
    ) -> Float[Tensor, "batch g g"]:
        """Maps made better picture by picture: the scores themselves are trained for a few steps, from the map of the
        decoder on, and the best by the hard measure is kept, so that it never gets worse.

        Adam on scores of standard deviation 3, at tau 0.3 and without noise (ours: where the publication is silent).
        Each step costs about 6 x `fractions` forward passes; the hard measure, every five steps, 42.

        Raises
        ------
        ValueError : for fewer than one step, or a class that was never explained in training.
        """
        if steps < 1:
            raise ValueError(f"steps (={steps}) must be at least 1")
        start, targets = self(images, targets), self.target.classes(targets, len(images))
        found = []
        for image, scores, c in zip(progress(images, "refining"), start, targets, strict=True):
            pixels = self.target.pixels([image])
            found.append(
                self._refine_one(
                    pixels, scores.flatten()[None].to(pixels.device), c[None], steps, lr, fractions, levels
                )
            )
        return _from_zero(torch.cat(found).unflatten(1, (self.target.grid,) * 2)).cpu()

    def _refine_one(
        self, pixels: Tensor, start: Tensor, c: Tensor, steps: int, lr: float, fractions: int, levels: int
    ) -> Tensor:
        instead, chosen = reference(self.target, pixels, "mean"), draw_fractions(fractions)
        scores = (SPREAD / 2 * standardised(start)).requires_grad_()
        best, best_value = start, _gap(self.target, pixels, start, c)
        optimiser = torch.optim.Adam([scores], lr=lr)
        for step in range(1, steps + 1):
            with torch.enable_grad():
                ranks = soft_sort(scores, levels=min(levels, scores.shape[1]))
                found = areas(self.target, pixels, instead, ranks, c, chosen)
                [scores.grad] = torch.autograd.grad((found.deletion - found.insertion).sum(), scores)
            optimiser.step()
            if step % _LOOK_EVERY and step != steps:
                continue
            value = _gap(self.target, pixels, scores.detach(), c)
            if value > best_value:
                best, best_value = scores.detach().clone(), value
        return best

    def _check_seen(self, targets: Int[Tensor, "batch"]) -> None:
        if self.seen is None:
            return
        new = sorted(set(torch.as_tensor(targets).tolist()) - set(self.seen))
        if new:
            raise ValueError(
                f"class {new[0]} was never explained while the explainer was trained: train it for more steps "
                f"(ranking.steps); it knows {len(self.seen)} of {self.target.n_classes} classes"
            )

    def save(self, folder: Path, **card: Any) -> None:
        """Write the decoder, and what it belongs to: `model.safetensors`, then `model.json`."""
        seen = None if self.seen is None else list(self.seen)
        found = {"target": target_key(self.target), "seen": seen, "history": self.history, **self._shape()}
        save_module(self.decoder, folder, {**card, **found})

    def _shape(self) -> dict[str, int]:
        channels = self.decoder.whole.out_features
        return {"channels": channels, "classes": self.target.n_classes, "grid": self.target.grid}

    def _load(self, folder: Path) -> Decoder:
        card_path = folder / "model.json"
        if not card_path.exists():
            raise ValueError(f"{folder} holds no explainer: run chapter 10, or explain.train_ranking")
        card = read_object(card_path)
        if card.get("target") != target_key(self.target):
            raise ValueError(
                f"the explainer in {folder} was trained for another model, backbone or grid: train one for this model"
            )
        if type(card.get("channels")) is not int or card["channels"] < 4:
            raise ValueError(f"{card_path} is damaged: train the explainer again")
        decoder = new_decoder(self.target, card["channels"])
        load_module(decoder, folder)
        self.seen, self.history = card.get("seen"), card.get("history", [])
        return decoder


def _from_zero(maps: Float[Tensor, "batch g g"]) -> Float[Tensor, "batch g g"]:
    scores = standardised(maps.flatten(1))
    return (scores - scores.amin(1, keepdim=True)).view_as(maps)


def _gap(target: Target, pixels: Tensor, scores: Tensor, c: Tensor) -> float:
    found = hard_areas(target, pixels, scores, c)
    return float((found.insertion - found.deletion)[0])


def new_decoder(target: Target, channels: int) -> Decoder:
    """A decoder without training, for a target."""
    size = target.backbone.image_size
    tokens, _ = several_depths(target.backbone, torch.zeros(1, 3, size, size, device=target.device))
    return Decoder(widths=[t.shape[2] for t in tokens], classes=target.n_classes, channels=channels)


def target_key(target: Target) -> str:
    """Hash of everything that the answers of a target depend on: backbone, input size and the weights of the head."""
    size = target.backbone.image_size
    return content_hash([target.backbone.fingerprint, size, state_hash(target.model.state_dict())])
