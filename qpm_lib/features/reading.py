"""Rows of a feature store read from its files, in any order."""

import json
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float16, Int
from torch import Tensor

from qpm_lib.features.shards import Manifest, shard_name


class ShardReader:
    """Reads rows of the shards in a folder; memory does not grow with the store."""

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        self.folder, self.manifest = folder, manifest

    @cached_property
    def _starts(self) -> list[dict[str, int]]:
        """Byte at which the numbers of each tensor begin, per shard, from the header of the file (safetensors:
        its length, then JSON).
        """
        starts = []
        for k in range(self.manifest.n_shards):
            with open(self.folder / shard_name(k), "rb") as file:
                length = int.from_bytes(file.read(8), "little")
                header = json.loads(file.read(length))
            starts.append({name: 8 + length + header[name]["data_offsets"][0] for name in ("patches", "cls")})
        return starts

    def _read(self, k: int, name: str, rows: list[int], into: Float16[np.ndarray, "rows *shape"]) -> None:
        """Read rows of one shard. Plain reads, not a memory map: pages of a map count as memory of this process."""
        size = into[0].nbytes
        with open(self.folder / shard_name(k), "rb") as file:
            for row, target in zip(rows, into, strict=True):
                file.seek(self._starts[k][name] + row * size)
                if file.readinto(target) != size:
                    raise ValueError(f"{self.folder / shard_name(k)} is damaged: extract again, whole shards are kept")

    def gather(self, name: str, rows: Int[Tensor, "batch"]) -> Float16[Tensor, "batch *shape"]:
        """Rows of one tensor, `patches` or `cls`, in the order given, shard by shard."""
        m = self.manifest
        shape = (m.n_patches, m.width) if name == "patches" else (m.width,)
        found = np.empty((len(rows), *shape), np.float16)
        shard_of, within = (rows // m.shard_size).numpy(), (rows % m.shard_size).numpy()
        for k in np.unique(shard_of).tolist():
            here = np.flatnonzero(shard_of == k)
            part = np.empty((len(here), *shape), np.float16)
            self._read(k, name, within[here].tolist(), part)
            found[here] = part
        return torch.from_numpy(found)
