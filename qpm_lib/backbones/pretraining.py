"""Renderer-supervised pre-training of the embedded toy backbone.

The network sees random birds (never a species of the data set) and learns, from what the renderer knows,
which part each patch shows, which variant that part is, and the eleven factors of the whole bird from the CLS token.
It is a stand-in for a large self-supervised backbone and is *renderer-supervised*: measures that ask whether features
lie on parts profit from that.
"""

import logging
import math
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

from qpm_lib.backbones.registry import TOY_MEAN, TOY_STD
from qpm_lib.backbones.toy_vit import build_toy_vit, save_weights
from qpm_lib.core import file_hash, mixed_precision, progress, write_atomically, write_json
from qpm_lib.data import FACTOR_PART, FACTORS, PARTS, make_species, random_bird, render

log = logging.getLogger(__name__)
_SMALL_PARTS = ("legs", "crown", "eye", "beak")
_CHECKPOINT_EVERY = 100


@dataclass(frozen=True)
class PretrainingConfig:
    """Recipe of the embedded backbone; the defaults made `assets/toy_vit.safetensors`."""

    steps: int = 1500
    batch_size: int = 32
    lr: float = 1e-3
    warmup_steps: int = 100
    weight_decay: float = 0.05
    kept_patches: int = 160
    part_weight: float = 2.0
    variant_weight: float = 1.0
    factor_weight: float = 0.03
    seed: int = 0


class Sample(NamedTuple):
    """One render with its labels; -1 marks what is not there."""

    image: UInt8[np.ndarray, "128 128 3"]
    patch_part: Int[np.ndarray, "256"]
    factors: Int[np.ndarray, "11"]


def patch_parts(parts: UInt8[np.ndarray, "h w"], patch: int = 8) -> Int[np.ndarray, "patches"]:
    """Part shown by each patch: the one with most pixels, where pixels of small parts count twice."""
    cells = rearrange(parts, "(y p) (x q) -> (y x) (p q)", p=patch, q=patch)
    weight = [2 if part in _SMALL_PARTS else 1 for part in PARTS]
    counts = np.stack([(cells == k).sum(1) * weight[k] for k in range(len(PARTS))], axis=1)
    return counts.argmax(1)


class PretrainingRenders(Dataset):
    """Numbered renders of random birds, none of which is a species of the data set (default seed,
    any number of species).
    """

    def __init__(self, config: PretrainingConfig, start_step: int) -> None:
        self.config, self.start = config, start_step * config.batch_size
        self.species = set(make_species(48))

    def __len__(self) -> int:
        return self.config.steps * self.config.batch_size - self.start

    def __getitem__(self, index: int) -> Sample:
        rng = np.random.default_rng([self.config.seed, 71, self.start + index])
        bird = random_bird(rng)
        while bird in self.species:
            bird = random_bird(rng)
        image, parts = render(bird, int(rng.integers(2**62)))
        visible = set(np.unique(parts))
        factors = [
            FACTORS[f].index(v) if PARTS.index(FACTOR_PART[f]) in visible or (f, v) == ("crown", "none") else -1
            for f, v in bird._asdict().items()
        ]
        return Sample(image, patch_parts(parts), np.array(factors))


class PretrainingHeads(nn.Module):
    """Linear read-outs used only while pre-training: part and variants per patch, factors from CLS."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.part = nn.Linear(width, len(PARTS))
        self.variant = nn.ModuleList(nn.Linear(width, len(v)) for v in FACTORS.values())
        self.factor = nn.ModuleList(nn.Linear(width, len(v)) for v in FACTORS.values())

    def loss(
        self,
        cls: Float[Tensor, "b d"],
        patches: Float[Tensor, "b p d"],
        part: Int[Tensor, "b p"],
        factors: Int[Tensor, "b 11"],
        config: PretrainingConfig,
    ) -> dict[str, Tensor]:
        """The three cross-entropies, unweighted, by name."""
        losses = {"part": F.cross_entropy(self.part(patches).float().flatten(0, 1), part.flatten())}
        variant, factor = [], []
        for k, owner in enumerate(FACTOR_PART.values()):
            shown = (part == PARTS.index(owner)) & (factors[:, k, None] >= 0)
            if shown.any():
                target = factors[:, k, None].expand_as(part)[shown]
                variant.append(F.cross_entropy(self.variant[k](patches[shown]).float(), target))
            factor.append(F.cross_entropy(self.factor[k](cls).float(), factors[:, k], ignore_index=-1))
        losses["variant"] = torch.stack(variant).mean() if variant else patches.sum() * 0
        losses["factor"] = torch.stack(factor).mean()
        return losses


def _kept_tokens(
    vit: nn.Module, images: Float[Tensor, "b 3 h w"], keep: Int[Tensor, "b kept"]
) -> tuple[Tensor, Tensor]:
    """Forward pass over a subset of the patches, as in masked training: (cls, patches)."""
    tokens = vit.patch_embed(images) + vit.pos_embed
    tokens = tokens.gather(1, keep[..., None].expand(-1, -1, tokens.shape[-1]))
    prefix = torch.cat([vit.cls_token, vit.reg_token], 1).expand(len(tokens), -1, -1)
    tokens = vit.norm(vit.blocks(torch.cat([prefix, tokens], 1)))
    return tokens[:, 0], tokens[:, prefix.shape[1] :]


def _learning_rate(step: int, config: PretrainingConfig) -> float:
    return (
        config.lr
        * min(1.0, (step + 1) / config.warmup_steps)
        * (0.5 * (1 + math.cos(math.pi * step / config.steps)) + 0.005)
    )


def _batches(config: PretrainingConfig, start: int, workers: int) -> Iterator:
    renders = PretrainingRenders(config, start)
    return iter(
        DataLoader(renders, batch_size=config.batch_size, num_workers=workers, prefetch_factor=4 if workers else None)
    )


def pretrain(config: PretrainingConfig, folder: Path, *, device: str = "cpu", workers: int = 1) -> Path:
    """Train, write `toy_vit.safetensors` and `toy_vit.json` (config, log, hash) into the folder,
    and return the weights' path.

    A checkpoint is kept in the folder, so a stopped run goes on where it was; it is removed at the end.
    """
    torch.manual_seed(config.seed)
    vit = build_toy_vit().to(device)
    heads = PretrainingHeads(vit.embed_dim).to(device)
    parameters = [*vit.parameters(), *heads.parameters()]
    optimiser = torch.optim.AdamW(parameters, lr=config.lr, weight_decay=config.weight_decay, betas=(0.9, 0.95))
    checkpoint, history, start = folder / "checkpoint.pt", [], 0
    folder.mkdir(parents=True, exist_ok=True)
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        if state["config"] != asdict(config):
            raise ValueError(f"{checkpoint} belongs to another recipe: use another folder, or delete it")
        vit.load_state_dict(state["vit"])
        heads.load_state_dict(state["heads"])
        optimiser.load_state_dict(state["optimiser"])
        start, history = state["step"], state["history"]
        log.info("continuing at step %d of %d", start, config.steps)
    began = time.monotonic()
    for step, batch in enumerate(
        progress(_batches(config, start, workers), "pre-training", total=config.steps, initial=start), start
    ):
        generator = torch.Generator().manual_seed(config.seed * 1_000_003 + step)
        losses = _train_step(vit, heads, optimiser, batch, config, step, generator)
        if (step + 1) % _CHECKPOINT_EVERY == 0:
            history.append(
                {
                    "step": step + 1,
                    "seconds": round(time.monotonic() - began),
                    **{k: round(float(v), 4) for k, v in losses.items()},
                }
            )
            log.info("%s", history[-1])
            state = {
                "config": asdict(config),
                "vit": vit.state_dict(),
                "heads": heads.state_dict(),
                "optimiser": optimiser.state_dict(),
                "step": step + 1,
                "history": history,
            }
            write_atomically(checkpoint, lambda path, state=state: torch.save(state, path))
    weights = folder / "toy_vit.safetensors"
    save_weights(vit, weights)
    card = {"training": "renderer-supervised", "config": asdict(config), "sha256": file_hash(weights), "log": history}
    write_json(folder / "toy_vit.json", card)
    checkpoint.unlink(missing_ok=True)
    return weights


def _train_step(
    vit: nn.Module,
    heads: PretrainingHeads,
    optimiser: torch.optim.Optimizer,
    batch: tuple,
    config: PretrainingConfig,
    step: int,
    generator: torch.Generator,
) -> dict[str, Tensor]:
    device = vit.pos_embed.device
    images, part, factors = (t.to(device) for t in batch)
    images = (rearrange(images, "b h w c -> b c h w").float() / 255 - TOY_MEAN) / TOY_STD
    keep = torch.rand(part.shape, generator=generator).argsort(1)[:, : config.kept_patches].to(device)
    for group in optimiser.param_groups:
        group["lr"] = _learning_rate(step, config)
    with mixed_precision(device, on_cpu=True):
        cls, patches = _kept_tokens(vit, images, keep)
        losses = heads.loss(cls, patches, part.gather(1, keep), factors, config)
    total = (
        config.part_weight * losses["part"]
        + config.variant_weight * losses["variant"]
        + config.factor_weight * losses["factor"]
    )
    optimiser.zero_grad()
    total.backward()
    nn.utils.clip_grad_norm_([p for g in optimiser.param_groups for p in g["params"]], 1.0)
    optimiser.step()
    return {name: loss.detach() for name, loss in losses.items()}
