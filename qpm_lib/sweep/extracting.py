"""Features by several workers: shards do not depend on each other."""

import os
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path

from qpm_lib.backbones import FrozenBackbone
from qpm_lib.core import RunConfig, cache_folder
from qpm_lib.data import ImageDataset
from qpm_lib.features import FeatureStore, Manifest, complete_store, shard_name, write_shards
from qpm_lib.runs import load_run_backbone, load_run_dataset
from qpm_lib.sweep.cluster import Workers, import_distributed


def extract_features(
    config: RunConfig, workers: Workers, *, on_shard: Callable[[str, int, int], None] | None = None
) -> FeatureStore:
    """Compute what is missing of the features of a run, a shard at a time on each worker; the same bytes as
    `FeatureStore.extract` makes with as many threads.

    A worker that dies costs its shard, which another one makes; a stopped call goes on with the shards that are there.

    Parameters
    ----------
    on_shard : called with the name of each shard that is done, how many are, and how many there are to do.

    Raises
    ------
    ValueError : when settings ask for live features, which are never stored, or a picture cannot be read.
    RuntimeError : when the scheduler is lost.
    """
    if config.features.live or config.data.augment != "none":
        raise ValueError("features.live and data.augment make features anew in every epoch: nothing is stored")
    dataset, backbone = load_run_dataset(config), load_run_backbone(config)

    def write(missing: Sequence[int], manifest: Manifest, folder: Path) -> None:
        distributed, kept = import_distributed(), (str(folder.resolve()), str(cache_folder().resolve()))
        done = [workers.client.submit(_shard, config, k, manifest, *kept, pure=False) for k in missing]
        names = {future: shard_name(k) for future, k in zip(done, missing, strict=True)}
        try:
            for number, future in enumerate(distributed.as_completed(done), 1):
                if future.status == "cancelled":
                    raise RuntimeError("the scheduler was lost: run the same command again to go on")
                future.result()
                if on_shard:
                    on_shard(names[future], number, len(done))
        except BaseException:
            workers.client.cancel(done, force=True)
            raise

    return complete_store(dataset, backbone, write, shard_size=config.features.shard_size)


@lru_cache(maxsize=1)
def _inputs(config: RunConfig) -> tuple[ImageDataset, FrozenBackbone]:
    return load_run_dataset(config), load_run_backbone(config)


def _shard(config: RunConfig, number: int, manifest: Manifest, folder: str, cache: str) -> None:
    """On a worker: one shard."""
    os.environ["QPM_CACHE"] = cache
    batch = min(config.features.batch_size, manifest.shard_size)
    write_shards([number], manifest, *_inputs(config), Path(folder), batch, config.features.workers)
