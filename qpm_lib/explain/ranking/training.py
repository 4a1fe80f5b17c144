"""Training an explainer for a target: resumable, seeded, and stopped before a broken number gets into it."""

import copy
import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from qpm_lib.backbones import state_hash
from qpm_lib.core import VERSION, Checkpoint, RankingConfig, content_hash, progress, read_object
from qpm_lib.data import ImageDataset
from qpm_lib.explain.attn_lrp import AttnLRP
from qpm_lib.explain.ranking.decoder import Decoder
from qpm_lib.explain.ranking.method import LearnedRanking, new_decoder, target_key
from qpm_lib.explain.ranking.objective import (
    REFERENCES,
    SPREAD,
    Areas,
    areas,
    draw_fractions,
    reference,
    roughness,
    shifted_pool,
    standardised,
)
from qpm_lib.explain.ranking.reading import read
from qpm_lib.explain.ranking.sorting import gumbel, soft_sort
from qpm_lib.explain.target import Target

log = logging.getLogger(__name__)
_KEEP_EVERY, _WARM_UP = 50, 0.06
Step = tuple[int, float, float]


class _Batch(NamedTuple):
    pixels: Tensor
    classes: Tensor
    generator: torch.Generator


def train_ranking(
    target: Target | Sequence[Target],
    dataset: ImageDataset,
    rows: Int[Tensor, "rows"] | Sequence[int],
    folder: Path | str,
    config: RankingConfig | None = None,
    *,
    seed: int = 0,
    start: Decoder | None = None,
    on_step: Callable[[int, LearnedRanking], float | None] | None = None,
) -> LearnedRanking:
    """Train an explainer for a target on pictures (no labels are read), and keep it in a folder.

    Each step takes some pictures, explains the predicted class (or, for some, the second), sorts the map softly, and
    lowers deletion minus insertion plus 0.0025 times the mean square of what exceeds its surroundings (arXiv
    2604.05819). AdamW, 6 % warm-up, cosine, gradients cut at norm 1, tau from 1 to 0.3. Ours: scores are standardised,
    one matrix of ranks serves both curves, ranks come in groups, in half of the steps the grid lies elsewhere than the
    patches, so that a map can be finer than they are. With a start, tau is 0.3 all the time and the rate 0.3 of
    `config.lr`. The first `config.imitate` steps learn the ranks of AttnLRP instead (mean square; a step costs a third,
    and the measure takes over from a good map).

    What is finished is not trained again; a stopped call goes on from its last 50 steps, with the same
    result (on a CPU to the bit).

    Parameters
    ----------
    target : one; or several with the same backbone and number of classes, which are taken in turn, step by step, and
        without a class of their own: their explainer is one to begin from. rows : of the data set, to be trained on.
    start : a decoder to begin with; it is not changed. on_step : called after each step; numbers that it returns are
        kept as `watched`, also where the training is stopped and goes on.

    Raises
    ------
    ValueError : for no pictures, settings that do not fit, a target without gradients or one that cannot be explained,
        or when the loss stops being finite: the step is named, and the last good state is kept.
    """
    config, rows, folder = config or RankingConfig(), torch.as_tensor(rows), Path(folder)
    targets = [target] if isinstance(target, Target) else list(target)
    for one in targets:
        _check(one, config, len(rows))
    torch.manual_seed(seed)
    decoder = new_decoder(targets[0], config.channels) if start is None else copy.deepcopy(start)
    decoder.of_class.requires_grad_(len(targets) == 1)
    run = _Training(targets, dataset, rows, config, seed, decoder, folder, started=start is not None)
    if (folder / "model.json").exists() and read_object(folder / "model.json").get("training") == run.key:
        try:
            return LearnedRanking(targets[0], explainer=folder)
        except ValueError as error:  # damaged
            log.warning("%s: the explainer is trained anew", error)
    run.train(on_step)
    return run.finish()


class _Training:
    """The state of one training: decoder, optimiser, counts of classes, and what was measured."""

    def __init__(
        self,
        targets: Sequence[Target],
        dataset: ImageDataset,
        rows: Tensor,
        config: RankingConfig,
        seed: int,
        decoder: Decoder,
        folder: Path,
        *,
        started: bool,
    ) -> None:
        self.dataset, self.rows, self.config, self.started = dataset, rows, config, started
        self.seed, self.folder, self.path = seed, folder, folder / "training.safetensors"
        parts = [VERSION, [target_key(target) for target in targets], dataset.fingerprint, rows.tolist(), seed]
        self.key = content_hash([*parts, asdict(config), state_hash(decoder.state_dict())])
        self.checkpoint = Checkpoint(self.path, self.key)
        self.methods = [LearnedRanking(target, explainer=decoder) for target in targets]
        self.decoder = decoder.train()
        self.trained = [weight for weight in decoder.parameters() if weight.requires_grad]
        self.optimiser = torch.optim.AdamW(self.trained, lr=config.lr, weight_decay=config.weight_decay)
        self.history: list[Step] = []
        self.watched: list[tuple[int, float]] = []
        self.explained: set[int] = set()

    def train(self, on_step: Callable[[int, LearnedRanking], float | None] | None) -> None:
        """Train, from where an earlier call stopped."""
        first = self._resume()
        numbers = range(first, self.config.steps)
        for step in progress(numbers, "training the explainer", total=self.config.steps, initial=first):
            self._step(step)
            if on_step and (value := on_step(step, self.methods[0])) is not None:
                self.watched.append((step, float(value)))
            if (step + 1) % _KEEP_EVERY == 0 or self.checkpoint.due:
                self._keep(step + 1)

    def _step(self, step: int) -> None:
        config, method = self.config, self.methods[step % len(self.methods)]
        batch, done = self._batch(step, method.target), step / config.steps
        for group in self.optimiser.param_groups:
            warm = min(1.0, (step + 1) / max(1.0, _WARM_UP * config.steps))
            group["lr"] = (0.3 if self.started else 1.0) * config.lr * warm * 0.5 * (1 + math.cos(math.pi * done))
        self.decoder.train()
        if step < config.imitate:
            found, loss = None, _unlike(self._draw(method, batch), method.target, batch)
        else:
            found, roughness = self._forward(method, batch, tau=0.3 if self.started else 0.3**done)
            loss = (found.deletion - found.insertion).mean() + 0.0025 * roughness
        self.optimiser.zero_grad()
        loss.backward(inputs=self.trained)
        size = torch.nn.utils.clip_grad_norm_(self.decoder.parameters(), 1.0)
        if not torch.isfinite(loss) or not torch.isfinite(size):
            self._keep(step)
            raise ValueError(
                f"the loss is not finite in step {step} at ranking.lr={config.lr}: lower it. The state before that "
                f"step is kept in {self.folder}"
            )
        self.optimiser.step()
        self.explained.update(batch.classes.tolist())
        if found:
            self.history.append((step, *(float(area.detach().mean()) for area in found)))

    def _batch(self, step: int, target: Target) -> _Batch:
        generator = torch.Generator().manual_seed((self.seed * 1_000_003 + step) % 2**63)
        size = min(self.config.batch_size, len(self.rows))
        chosen = self.rows[torch.randperm(len(self.rows), generator=generator)[:size]].tolist()
        pixels = target.pixels([target.backbone.square(self.dataset.image(row)) for row in chosen])
        with torch.no_grad():
            best = target(pixels).topk(2, 1).indices
        second = (torch.rand(size, generator=generator) < self.config.second).to(best.device)
        return _Batch(pixels, torch.where(second, best[:, 1], best[:, 0]), generator)

    def _draw(self, method: LearnedRanking, batch: _Batch) -> Tensor:
        seen = read(method.target, batch.pixels, batch.classes)
        return self.decoder(seen, batch.pixels, batch.classes)

    def _forward(self, method: LearnedRanking, batch: _Batch, tau: float) -> tuple[Areas, Tensor]:
        pixels, classes, generator = batch
        target, config, dense = method.target, self.config, self._draw(method, batch)
        patch = target.backbone.image_size // target.grid
        place = torch.randint(1, max(2, patch), (2,), generator=generator) * torch.randint(2, (), generator=generator)
        corner = tuple(place.tolist())
        scores = SPREAD * standardised(shifted_pool(dense, target.grid, corner))
        shape = (len(scores), min(config.levels, scores.shape[1]), scores.shape[1])
        noise = config.noise * gumbel(shape, generator).to(scores.device)
        ranks = soft_sort(scores, levels=shape[1], tau=tau, noise=noise, iterations=config.iterations)
        kinds = REFERENCES if config.reference == "any" else (config.reference,)
        kind = kinds[int(torch.randint(len(kinds), (), generator=generator))]
        instead = reference(target, pixels, kind)
        found = areas(target, pixels, instead, ranks, classes, draw_fractions(config.fractions, generator), corner)
        return found, roughness(dense)

    def _keep(self, step: int) -> None:
        done = {"step": step, "history": self.history, "watched": self.watched, "explained": sorted(self.explained)}
        self.checkpoint.keep(self.decoder, self.optimiser, done)

    def _resume(self) -> int:
        found = self.checkpoint.resume(self.decoder, self.optimiser)
        if found is None:
            return 0
        done, _ = found
        self.history = [(int(step), float(deletion), float(insertion)) for step, deletion, insertion in done["history"]]
        self.watched = [(int(step), float(value)) for step, value in done.get("watched", [])]
        self.explained = set(done["explained"])
        return int(done["step"])

    def finish(self) -> LearnedRanking:
        """Write the explainer; what was kept for going on is not needed any more."""
        method = self.methods[0]
        method.seen, method.history, method.watched = sorted(self.explained), self.history, self.watched
        self.decoder.eval()
        method.save(self.folder, training=self.key, steps=self.config.steps)
        self.path.unlink(missing_ok=True)
        return method


def _unlike(dense: Float[Tensor, "batch size size"], target: Target, batch: _Batch) -> Float[Tensor, ""]:
    """Mean square between the scores of patches and their ranks by AttnLRP, both of standard deviation 1."""
    wanted = AttnLRP(target).maps(batch.pixels, batch.classes).flatten(1)
    ranks = wanted.argsort(1).argsort(1).to(dense)
    scores = F.adaptive_avg_pool2d(dense, target.grid).flatten(1)
    return F.mse_loss(standardised(scores), standardised(ranks))


def _check(target: Target, config: RankingConfig, n_pictures: int) -> None:
    if not n_pictures:
        raise ValueError("no pictures were given: an explainer is trained on pictures")
    if config.steps < 1 or config.batch_size < 1 or config.fractions < 1 or config.levels < 2 or config.channels % 4:
        raise ValueError(
            f"ranking.steps (={config.steps}), batch_size (={config.batch_size}) and fractions (={config.fractions}) "
            f"must be at least 1, levels (={config.levels}) at least 2, channels (={config.channels}) a multiple of 4"
        )
    if config.imitate and not (0 < config.imitate <= config.steps and target.backbone.is_transformer):
        raise ValueError(
            f"ranking.imitate (={config.imitate}) must be from 0 to ranking.steps (={config.steps}), and 0 for a "
            "backbone that is no transformer"
        )
    pixels = torch.rand(1, 3, *(target.backbone.image_size,) * 2, device=target.device, requires_grad=True)
    with torch.enable_grad():
        scores = target(pixels).sum()
        if not scores.requires_grad or torch.autograd.grad(scores, pixels, allow_unused=True)[0] is None:
            raise ValueError(
                "the target has no gradient: an explainer is trained through the model, which must compute with tensors"
            )
