"""Features made while they are needed, from the backbone run live: slower than a store, but pictures can be varied in
training.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from PIL import Image, ImageOps
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from qpm_lib.backbones import FrozenBackbone, Preprocessing
from qpm_lib.core import move
from qpm_lib.data import ImageDataset
from qpm_lib.features.base import FeatureBatch
from qpm_lib.features.store import FeatureStore

Augment = Literal["none", "flip", "crop"]
_SMALLEST_SHARE, _CHUNK = 0.6, 64


def varied(image: Image.Image, augment: Augment, seed: int) -> Image.Image:
    """The picture mirrored (`flip`: in half of the cases), or also cut to a random part of 60 to 100 % of its area and
    its own shape (`crop`).
    """
    rng = np.random.default_rng(seed)
    if augment != "none" and rng.random() < 0.5:
        image = ImageOps.mirror(image)
    if augment == "crop":
        share = rng.uniform(_SMALLEST_SHARE, 1) ** 0.5
        width, height = (max(1, round(share * side)) for side in image.size)
        left, top = (
            int(rng.integers(0, whole - part + 1)) for whole, part in zip(image.size, (width, height), strict=True)
        )
        image = image.crop((left, top, left + width, top + height))
    return image


class _Pictures(Dataset):
    """Pictures by row and seed; a negative seed means as they are."""

    def __init__(self, dataset: ImageDataset, preprocessing: Preprocessing, augment: Augment) -> None:
        self.dataset, self.preprocessing, self.augment = dataset, preprocessing, augment

    def __getitem__(self, job: tuple[int, int]) -> Tensor:
        row, seed = job
        image = self.dataset.image(row)
        return self.preprocessing([image if seed < 0 else varied(image, self.augment, seed)])[0]


class LiveFeatures(FeatureStore):
    """Takes the place of a `FeatureStore`: same batches, nothing on disk. Pictures vary in shuffled batches only,
    that is in training.
    """

    def __init__(
        self, dataset: ImageDataset, backbone: FrozenBackbone, *, augment: Augment = "none", workers: int = 0
    ) -> None:
        self.dataset, self.backbone, self.augment, self.workers = dataset, backbone, augment, workers
        self.labels = torch.as_tensor(dataset.labels, dtype=torch.long)
        self.is_train = torch.as_tensor(dataset.is_train)
        self.class_names, self.backbone_fingerprint = dataset.class_names, backbone.fingerprint
        self.width, self.grid, self.n_patches = backbone.width, backbone.grid, backbone.grid**2
        self.device = torch.device("cpu")
        self._idle: DataLoader | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def to(self, device: str | torch.device) -> "LiveFeatures":
        """Give batches on a device; the backbone stays on its own."""
        self.device = torch.device(device)
        return self

    def fetch(self, rows: Int[Tensor, "batch"]) -> FeatureBatch:
        """Some rows, in the order given, not varied."""
        parts = list(zip(*self.batches(rows, _CHUNK), strict=True))
        if not parts:
            raise ValueError("no rows were asked for")
        return FeatureBatch(*(torch.cat(part) for part in parts))

    def batches(
        self, rows: Int[Tensor, "rows"], batch_size: int, *, generator: torch.Generator | None = None, skip: int = 0
    ) -> Iterator[FeatureBatch]:
        """Batches over some rows: shuffled and varied by the generator, or in order and as they are without one. The
        first `skip` are left out.
        """
        order, seeds = rows, torch.full((len(rows),), -1)
        if generator is not None:
            order = rows[torch.randperm(len(rows), generator=generator)]
            seeds = torch.randint(2**31, (len(rows),), generator=generator)
        order, seeds = order[skip * batch_size :], seeds[skip * batch_size :]
        jobs = list(zip(order.tolist(), seeds.tolist(), strict=True))
        if not jobs:
            return
        with self._loaded([jobs[i : i + batch_size] for i in range(0, len(jobs), batch_size)]) as loader:
            for images, chunk in zip(loader, order.split(batch_size), strict=True):
                tokens = self.backbone.tokens(images)
                yield FeatureBatch(
                    tokens.patches.to(self.device), tokens.cls.to(self.device), move(self.labels[chunk], self.device)
                )

    @contextmanager
    def _loaded(self, jobs: list[list[tuple[int, int]]]) -> Iterator[DataLoader]:
        """A loader of these batches: the one of the epoch before with its processes, if it came to its end."""
        loader, self._idle = self._idle, None
        if loader is None:
            pictures, kept = _Pictures(self.dataset, self.backbone.preprocessing, self.augment), self.workers > 0
            # A generator of its own: how many processes there are must not move that of the training.
            options = {"num_workers": self.workers, "persistent_workers": kept, "generator": torch.Generator()}
            loader = DataLoader(pictures, batch_sampler=[], **options)
        loader.batch_sampler[:] = jobs
        yield loader
        self._idle = loader

    def cls_tokens(self, rows: Int[Tensor, "rows"]) -> Float[np.ndarray, "rows dim"]:
        """CLS tokens as a NumPy array."""
        return np.concatenate([batch.cls.cpu().numpy() for batch in self.batches(rows, _CHUNK)])
