"""The files of a feature store: what made them, written whole or not at all, checked when they are opened."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from qpm_lib.backbones import FrozenBackbone, Preprocessing
from qpm_lib.core import progress, read_json, write_atomically, write_json
from qpm_lib.data import ImageDataset

MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Manifest:
    """What made a store: backbone and preprocessing, picture list, shapes, and the length of a shard."""

    backbone: dict
    images: str
    n_images: int
    n_patches: int
    width: int
    shard_size: int

    @property
    def n_shards(self) -> int:
        """Number of files."""
        return -(-self.n_images // self.shard_size)


class _Pictures(Dataset):
    def __init__(self, dataset: ImageDataset, preprocessing: Preprocessing) -> None:
        self.dataset, self.preprocessing = dataset, preprocessing

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, row: int) -> Tensor:
        return self.preprocessing([self.dataset.image(row)])[0]


def shard_name(index: int) -> str:
    """File name of a shard."""
    return f"shard-{index:05d}.safetensors"


def shard_rows(index: int, manifest: Manifest) -> range:
    """Rows of the store that a shard holds."""
    return range(index * manifest.shard_size, min((index + 1) * manifest.shard_size, manifest.n_images))


def is_whole(path: Path, rows: int) -> bool:
    """Whether a shard file is there and readable with the right number of rows."""
    try:
        with safe_open(path, "pt") as shard:
            return shard.get_slice("patches").get_shape()[0] == rows and shard.get_slice("cls").get_shape()[0] == rows
    except (OSError, SafetensorError):
        return False


def check_match(manifest: Manifest, dataset: ImageDataset, backbone: FrozenBackbone, folder: Path) -> None:
    """Refuse a store that something else made, and say what differs."""
    for key, value in backbone.fingerprint.items():
        if manifest.backbone.get(key) != value:
            raise ValueError(
                f"{folder} was made with {key} {manifest.backbone.get(key)!r}, not {value!r}: use another folder, "
                "or delete this one"
            )
    if manifest.images != dataset.fingerprint:
        raise ValueError(
            f"{folder} was made from another picture list ({manifest.n_images} pictures; now {len(dataset)}): "
            "use another folder, or delete this one"
        )


def settle_manifest(dataset: ImageDataset, backbone: FrozenBackbone, folder: Path, shard_size: int) -> Manifest:
    """The manifest of a folder: read and checked where there is one, written where there is none."""
    path = folder / MANIFEST
    if path.exists():
        manifest = Manifest(**read_json(path))
        check_match(manifest, dataset, backbone, folder)
        return manifest
    manifest = Manifest(
        backbone.fingerprint, dataset.fingerprint, len(dataset), backbone.grid**2, backbone.width, shard_size
    )
    write_json(path, asdict(manifest))
    return manifest


def write_shards(
    shards: Sequence[int],
    manifest: Manifest,
    dataset: ImageDataset,
    backbone: FrozenBackbone,
    folder: Path,
    batch_size: int,
    workers: int,
) -> None:
    """Extract the missing shards; no batch straddles two of them."""
    batches, ends = [], []
    for k in shards:
        rows = shard_rows(k, manifest)
        batches += [list(rows[i : i + batch_size]) for i in range(0, len(rows), batch_size)]
        ends.append(len(batches))
    pinned = next(backbone.network.parameters()).is_cuda
    pictures = _Pictures(dataset, backbone.preprocessing)
    loader = DataLoader(pictures, batch_sampler=batches, num_workers=workers, pin_memory=pinned)
    patches, tokens, shard = [], [], iter(shards)
    for done, images in enumerate(progress(loader, "extracting features", total=len(batches)), 1):
        out = backbone.tokens(images)
        patches.append(out.patches.half())  # on its device to the end of the shard, so that nothing waits in between
        tokens.append(out.cls.half())
        if done in ends:
            content = {"patches": torch.cat(patches).cpu(), "cls": torch.cat(tokens).cpu()}
            save_shard(content, folder / shard_name(next(shard)))
            patches, tokens = [], []


def save_shard(content: dict[str, Tensor], path: Path) -> None:
    """Write one shard: fp16 tensors `patches` (rows, P, D) and `cls` (rows, D).

    Raises
    ------
    ValueError : for values beyond fp16. RuntimeError : when the disk is full.
    """
    for name, tensor in content.items():
        if not torch.isfinite(tensor).all():
            raise ValueError(f"{path.name}: {name} holds values beyond fp16 range: the backbone's weights are damaged")
    try:
        write_atomically(path, lambda temporary: save_file(content, temporary))
    except (OSError, SafetensorError) as error:
        raise RuntimeError(
            f"{path} could not be written ({error}): free some disk space and run again, whole shards are kept"
        ) from error
