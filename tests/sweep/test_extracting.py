"""Extraction by two workers: the bytes of one process, what is whole stays, and errors come back."""

import pytest
from distributed import Client, LocalCluster

from qpm_lib.core.profiles import load_profile
from qpm_lib.features.shards import shard_name
from qpm_lib.features.store import FeatureStore
from qpm_lib.runs.inputs import load_run_backbone, load_run_dataset
from qpm_lib.sweep.cluster import Workers
from qpm_lib.sweep.extracting import extract_features

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")
SMALL = {"data.n_species": 4, "data.train_per_class": 7, "data.test_per_class": 2, "features.shard_size": 8}


@pytest.fixture(scope="module")
def workers():
    options = {"n_workers": 2, "threads_per_worker": 1, "processes": False, "dashboard_address": ":0"}
    with LocalCluster(**options) as cluster, Client(cluster) as client:
        yield Workers(client, 2, "here", 1)


def test_two_workers_write_the_bytes_of_one_process(workers, tmp_path):
    config, told = load_profile("smoke", **SMALL), []
    dataset, backbone = load_run_dataset(config), load_run_backbone(config)
    alone = FeatureStore.extract(dataset, backbone, tmp_path / "alone", shard_size=8)
    store = extract_features(config, workers, on_shard=lambda *shard: told.append(shard))
    assert store.manifest == alone.manifest
    names = [shard_name(k) for k in range(store.manifest.n_shards)]
    assert sorted(name for name, *_ in told) == names
    assert [(number, count) for _, number, count in told] == [(n, 5) for n in range(1, 6)]
    for name in names:
        assert (store.folder / name).read_bytes() == (alone.folder / name).read_bytes()
    (store.folder / names[2]).write_bytes(b"damaged")
    del told[:]
    extract_features(config, workers, on_shard=lambda *shard: told.append(shard))
    assert told == [(names[2], 1, 1)]
    assert (store.folder / names[2]).read_bytes() == (alone.folder / names[2]).read_bytes()


def test_an_error_on_a_worker_is_the_error_of_the_call(workers, tmp_path):
    for folder in ("a", "b"):
        (tmp_path / "pictures" / folder).mkdir(parents=True)
        for i in range(4):
            (tmp_path / "pictures" / folder / f"{i}.png").write_bytes(b"no picture")
    settings = {"data.kind": "folder", "data.root": str(tmp_path / "pictures"), "features.shard_size": 2}
    with pytest.raises(ValueError, match=r"png"):
        extract_features(load_profile("smoke", **settings), workers)
    with pytest.raises(ValueError, match="nothing is stored"):
        extract_features(load_profile("smoke", **{"features.live": True}), workers)
