"""Frozen features on disk: fp16 safetensors shards and a manifest, written once and read row by row in training.

A shard is written under a temporary name and renamed when it is whole, so extraction goes on after a kill at any moment
with the shards that are there. Memory does not grow with the data set: one shard while writing,
one batch while reading.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock, Timeout
from jaxtyping import Float, Int
from torch import Tensor

from qpm_lib.backbones import FrozenBackbone
from qpm_lib.core import cache_folder, content_hash, move, read_json
from qpm_lib.data import ImageDataset
from qpm_lib.features.base import FeatureBatch
from qpm_lib.features.reading import ShardReader
from qpm_lib.features.shards import (
    MANIFEST,
    Manifest,
    check_match,
    is_whole,
    settle_manifest,
    shard_name,
    shard_rows,
    write_shards,
)

log = logging.getLogger(__name__)


class FeatureStore:
    """Patch and CLS tokens of every picture of a data set, with labels and split.

    Attributes
    ----------
    labels : (N,) class indices. is_train : (N,). grid : g. width : D. class_names : C names.
    """

    def __init__(self, folder: Path, manifest: Manifest, dataset: ImageDataset) -> None:
        self.folder, self.manifest = folder, manifest
        self.labels = torch.as_tensor(dataset.labels, dtype=torch.long)
        self.is_train = torch.as_tensor(dataset.is_train)
        self.class_names = dataset.class_names
        self.backbone_fingerprint = manifest.backbone
        self.width, self.n_patches = manifest.width, manifest.n_patches
        self.grid = round(manifest.n_patches**0.5)
        self.device = torch.device("cpu")
        self._reader = ShardReader(folder, manifest)
        self._resident: tuple[Tensor, Tensor] | None = None

    def __len__(self) -> int:
        return self.manifest.n_images

    @staticmethod
    def default_folder(dataset: ImageDataset, backbone: FrozenBackbone) -> Path:
        """Where the features of this data set and backbone are cached; equal inputs share a folder."""
        return cache_folder() / f"features-{content_hash([dataset.fingerprint, backbone.fingerprint])}"

    @classmethod
    def extract(
        cls,
        dataset: ImageDataset,
        backbone: FrozenBackbone,
        folder: Path | None = None,
        *,
        batch_size: int = 64,
        shard_size: int = 512,
        workers: int = 0,
    ) -> "FeatureStore":
        """Compute what is missing of a store and open it.

        Parameters
        ----------
        folder : None takes `default_folder`.
        batch_size, shard_size, workers : pictures per forward pass, pictures per file, decoding processes;
            none changes the result.

        Raises
        ------
        ValueError : when the folder holds features of something else, or a picture cannot be read.
        RuntimeError : when the disk is full; whole shards are kept.
        """

        def write(missing: Sequence[int], manifest: Manifest, place: Path) -> None:
            batch = min(batch_size, manifest.shard_size)
            write_shards(missing, manifest, dataset, backbone, place, batch, workers)

        return complete_store(dataset, backbone, write, folder, shard_size=shard_size)

    @classmethod
    def open(cls, folder: Path, dataset: ImageDataset, backbone: FrozenBackbone) -> "FeatureStore":
        """Open a finished store.

        Raises
        ------
        ValueError : when there is none, a shard is missing or damaged, or backbone, weights,
            preprocessing or picture list differ.
        """
        path = Path(folder) / MANIFEST
        if not path.exists():
            raise ValueError(f"{folder} holds no features: extract them first")
        manifest = Manifest(**read_json(path))
        check_match(manifest, dataset, backbone, Path(folder))
        for k in range(manifest.n_shards):
            if not is_whole(Path(folder) / shard_name(k), len(shard_rows(k, manifest))):
                raise ValueError(
                    f"{Path(folder) / shard_name(k)} is missing or damaged: extract again, whole shards are kept"
                )
        return cls(Path(folder), manifest, dataset)

    @property
    def nbytes(self) -> int:
        """Size of the features in bytes (fp16)."""
        return 2 * len(self) * (self.n_patches + 1) * self.width

    def to(self, device: str | torch.device) -> "FeatureStore":
        """Move the features to a device where they fit into half of its free memory; otherwise batches are copied one
        by one.
        """
        self.device = torch.device(device)
        if self.device.type == "cuda" and self.nbytes < torch.cuda.mem_get_info(self.device)[0] / 2:
            every = torch.arange(len(self))
            parts = [
                [self._reader.gather(name, rows).to(self.device) for rows in every.split(512)]
                for name in ("patches", "cls")
            ]
            self._resident = (torch.cat(parts[0]), torch.cat(parts[1]))
        else:
            self._resident = None
        return self

    def rows(self, train: bool) -> Int[Tensor, "rows"]:
        """Indices of the training or of the test pictures."""
        return torch.nonzero(self.is_train == train).flatten()

    def fetch(self, rows: Int[Tensor, "batch"]) -> FeatureBatch:
        """Read some rows, in the order given, as fp32 on the store's device."""
        if self._resident is not None:
            where = move(rows, self.device)
            patches, cls = self._resident[0][where], self._resident[1][where]
        else:
            patches, cls = self._reader.gather("patches", rows), self._reader.gather("cls", rows)
        return FeatureBatch(
            move(patches, self.device).float(), move(cls, self.device).float(), move(self.labels[rows], self.device)
        )

    def batches(
        self, rows: Int[Tensor, "rows"], batch_size: int, *, generator: torch.Generator | None = None, skip: int = 0
    ) -> Iterator[FeatureBatch]:
        """Batches over some rows: shuffled by the generator, or in order without one. The last,
        smaller batch is included, the first `skip` are left out.
        """
        order = rows if generator is None else rows[torch.randperm(len(rows), generator=generator)]
        for chunk in order.split(batch_size)[skip:]:
            yield self.fetch(chunk)

    def cls_tokens(self, rows: Int[Tensor, "rows"]) -> Float[np.ndarray, "rows dim"]:
        """CLS tokens as a NumPy array."""
        return self._reader.gather("cls", rows).float().numpy()


def complete_store(
    dataset: ImageDataset,
    backbone: FrozenBackbone,
    write: Callable[[Sequence[int], Manifest, Path], None],
    folder: Path | None = None,
    *,
    shard_size: int = 512,
) -> FeatureStore:
    """As `FeatureStore.extract`, with a function that writes the missing shards: their numbers, what made the store,
    and its folder. Where another process is at it, waits for that.
    """
    folder = Path(folder or FeatureStore.default_folder(dataset, backbone))
    folder.mkdir(parents=True, exist_ok=True)
    with _alone(folder):
        manifest = settle_manifest(dataset, backbone, folder, shard_size)
        for leftover in folder.glob(".shard-*"):
            leftover.unlink()
        rows = {k: len(shard_rows(k, manifest)) for k in range(manifest.n_shards)}
        if missing := [k for k in rows if not is_whole(folder / shard_name(k), rows[k])]:
            log.info("%s: %d shards are missing or damaged and are made now", folder, len(missing))
            write(missing, manifest, folder)
    return FeatureStore(folder, manifest, dataset)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """One process at a time looks for what is missing of a store and writes it; the others wait, and find it whole."""
    lock = FileLock(folder / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        log.warning("another process is writing %s: waiting for it", folder)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()
