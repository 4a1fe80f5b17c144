"""Learned importance ranking as an explanation method: one pass, one dense map for any class."""

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
from qpm_lib.explain.ranking.objective import standardised
from qpm_lib.explain.ranking.reading import read, several_depths
from qpm_lib.explain.ranking.refinement import refine_one
from qpm_lib.explain.target import Target
from qpm_lib.model import load_module, save_module


class LearnedRanking(Method):
    """An explainer trained on deletion and insertion themselves (Schinagl et al. 2026, *Learn to Rank*,
    arXiv 2604.05819), for the target that it was trained on.

    Maps have no sign and no scale: what counts is their order. `train_ranking` makes one.

    Parameters
    ----------
    explainer : the folder of a trained one, or its decoder. seen : classes that it was trained to explain; None is all.

    Attributes
    ----------
    history : step, deletion and insertion (soft) of each step of its training. watched : steps and numbers that
        somebody who looked on kept (`on_step` of `train_ranking`).

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
        self.seen, self.history, self.watched = seen, [], []
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
        self._check_seen(self.target.classes(targets, len(images)))
        return super().__call__(images, targets)

    def maps(
        self, pixels: Float[Tensor, "batch 3 size size"], targets: Int[Tensor, "batch"]
    ) -> Float[Tensor, "batch g g"]:
        """Means of the dense map over patches, from 0 on, of standard deviation 1."""
        return _from_zero(F.adaptive_avg_pool2d(self.draw(pixels, targets), self.target.grid))

    def dense(self, images: Sequence[Image.Image], targets: Int[Tensor, "batch"]) -> Float[Tensor, "batch size size"]:
        """Maps at the resolution of the pixels that the backbone reads, on the CPU."""
        targets = self.target.classes(targets, len(images))
        self._check_seen(targets)
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
        return self.decoder(read(self.target, pixels, targets), pixels, targets)

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
            begin = scores.flatten()[None].to(pixels.device)
            found.append(refine_one(self.target, pixels, begin, c[None], steps, lr, fractions, levels))
        return _from_zero(torch.cat(found).unflatten(1, (self.target.grid,) * 2)).cpu()

    def _check_seen(self, targets: Int[Tensor, "batch"]) -> None:
        if self.seen is None:
            return
        new = sorted(set(targets.tolist()) - set(self.seen))
        if new:
            raise ValueError(
                f"class {new[0]} was never explained while the explainer was trained: train it for more steps "
                f"(ranking.steps); it knows {len(self.seen)} of {self.target.n_classes} classes"
            )

    def save(self, folder: Path, **card: Any) -> None:
        """Write the decoder, and what it belongs to: `model.safetensors`, then `model.json`."""
        seen = None if self.seen is None else list(self.seen)
        found = {"target": target_key(self.target), "seen": seen, "history": self.history, "watched": self.watched}
        found["channels"] = self.decoder.whole.out_features
        save_module(self.decoder, folder, {**card, **found})

    def _load(self, folder: Path) -> Decoder:
        card_path = folder / "model.json"
        if not card_path.exists():
            raise ValueError(f"{folder} holds no explainer: run chapter 10, or explain.train_ranking")
        card = read_object(card_path)
        if card.get("target") != target_key(self.target):
            raise ValueError(
                f"the explainer in {folder} was trained for another model, backbone or grid: train one for this model"
            )
        channels, seen = card.get("channels"), card.get("seen")
        if type(channels) is not int or channels < 4 or channels % 4 or not isinstance(seen, list | None):
            raise ValueError(f"{card_path} is damaged: train the explainer again")
        decoder = new_decoder(self.target, channels)
        load_module(decoder, folder)
        self.seen, self.history, self.watched = seen, card.get("history", []), card.get("watched", [])
        return decoder


def _from_zero(maps: Float[Tensor, "batch g g"]) -> Float[Tensor, "batch g g"]:
    scores = standardised(maps.flatten(1))
    return (scores - scores.amin(1, keepdim=True)).view_as(maps)


def new_decoder(target: Target, channels: int) -> Decoder:
    """A decoder without training, for a target."""
    size = target.backbone.image_size
    tokens, _ = several_depths(target.backbone, torch.zeros(1, 3, size, size, device=target.device))
    return Decoder(widths=[t.shape[2] for t in tokens], classes=target.n_classes, channels=channels)


def target_key(target: Target) -> str:
    """Hash of everything that the answers of a target depend on: backbone, input size and the weights of the head."""
    size, adapter = target.backbone.image_size, getattr(target.model, "adapter", None)
    parts = [target.backbone.fingerprint, size, state_hash(target.model.state_dict()), type(target.model).__name__]
    return content_hash([*parts, repr(getattr(adapter, "config", None))])
