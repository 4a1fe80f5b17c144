"""Tokens of a whole data set, read batch by batch: from disk, from memory, or made live."""

from qpm_lib.features.base import FeatureBatch
from qpm_lib.features.live import LiveFeatures
from qpm_lib.features.shards import Manifest, save_shard, shard_name, write_shards
from qpm_lib.features.store import FeatureStore, complete_store
from qpm_lib.features.tensors import TensorStore

__all__ = [
    "FeatureBatch",
    "FeatureStore",
    "LiveFeatures",
    "Manifest",
    "TensorStore",
    "complete_store",
    "save_shard",
    "shard_name",
    "write_shards",
]
