import copy
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from filelock import FileLock
from other_device import META, OtherDevice

from qpm_lib.backbones.frozen import load_backbone
from qpm_lib.backbones.toy_vit import build_toy_vit, save_weights
from qpm_lib.features import shards as files
from qpm_lib.features.store import FeatureStore


def shards(folder):
    return sorted(p.name for p in folder.glob("shard-*"))


def test_the_store_holds_the_tokens_of_the_backbone(toy, backbone, toy_store):
    rows = torch.tensor([30, 2, 17])
    batch = toy_store.fetch(rows)
    tokens = backbone.tokens(backbone.preprocess([toy.image(int(r)) for r in rows]))
    torch.testing.assert_close(batch.patches, tokens.patches.half().float(), atol=2e-3, rtol=2e-3)
    torch.testing.assert_close(batch.cls, tokens.cls.half().float(), atol=2e-3, rtol=2e-3)
    assert batch.labels.tolist() == toy.labels[rows.numpy()].tolist()
    np.testing.assert_allclose(toy_store.cls_tokens(rows), batch.cls.numpy())
    assert (toy_store.grid, toy_store.width, len(toy_store)) == (16, 192, 36)


def test_batch_and_shard_sizes_do_not_change_the_result(toy, backbone, toy_store, tmp_path):
    other = FeatureStore.extract(toy, backbone, tmp_path, batch_size=5, shard_size=7)
    rows = torch.arange(len(toy))
    torch.testing.assert_close(other.fetch(rows).patches, toy_store.fetch(rows).patches, atol=2e-3, rtol=2e-3)
    assert len(shards(tmp_path)) == 6


def test_batches_cover_every_row_once(toy_store):
    rows = toy_store.rows(train=True)
    sizes = [len(b.labels) for b in toy_store.batches(rows, 7)]
    assert sizes == [7, 7, 7, 3]
    seen = torch.cat([b.cls for b in toy_store.batches(rows, 7, generator=torch.Generator().manual_seed(0))])
    torch.testing.assert_close(seen.sum(0), toy_store.fetch(rows).cls.sum(0), atol=1e-2, rtol=1e-3)
    first, again, other = (
        next(iter(toy_store.batches(rows, 7, generator=torch.Generator().manual_seed(s)))).labels for s in (0, 0, 1)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_a_killed_extraction_goes_on_with_the_missing_shards(toy, backbone, tmp_path, monkeypatch):
    save, calls = files.save_shard, []

    def killed(content, path):
        if len(calls) == 2:
            raise KeyboardInterrupt
        calls.append(path.name)
        save(content, path)

    monkeypatch.setattr(files, "save_shard", killed)
    with pytest.raises(KeyboardInterrupt):
        FeatureStore.extract(toy, backbone, tmp_path, shard_size=8)
    assert shards(tmp_path) == calls
    times = {name: (tmp_path / name).stat().st_mtime_ns for name in calls}
    with pytest.raises(ValueError, match="missing or damaged"):
        FeatureStore.open(tmp_path, toy, backbone)
    monkeypatch.setattr(files, "save_shard", lambda content, path: (calls.append(path.name), save(content, path)))
    FeatureStore.extract(toy, backbone, tmp_path, shard_size=8)
    assert calls == [f"shard-{k:05d}.safetensors" for k in range(5)]
    assert {name: (tmp_path / name).stat().st_mtime_ns for name in times} == times
    assert len(FeatureStore.open(tmp_path, toy, backbone)) == 36


def test_a_damaged_shard_is_made_again(toy, backbone, tmp_path):
    FeatureStore.extract(toy, backbone, tmp_path, shard_size=20)
    shard = tmp_path / "shard-00001.safetensors"
    whole = shard.read_bytes()
    shard.write_bytes(whole[: len(whole) // 2])
    FeatureStore.extract(toy, backbone, tmp_path, shard_size=20)
    assert shard.read_bytes() == whole


def test_a_full_disk_leaves_no_half_shard(toy, backbone, tmp_path, monkeypatch):
    def full(content, path):
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files, "save_file", full)
    with pytest.raises(RuntimeError, match=r"shard-00000.*No space left.*run again"):
        FeatureStore.extract(toy, backbone, tmp_path)
    assert shards(tmp_path) == []
    assert not list(tmp_path.glob(".shard*"))


def test_features_of_something_else_are_refused(toy, backbone, tmp_path):
    FeatureStore.extract(toy, backbone, tmp_path / "a")
    torch.manual_seed(1)
    save_weights(build_toy_vit(), tmp_path / "w.safetensors")
    with pytest.raises(ValueError, match="weights_sha256"):
        FeatureStore.extract(toy, load_backbone("toy", weights=tmp_path / "w.safetensors"), tmp_path / "a")
    with pytest.raises(ValueError, match="aspect 'squash', not 'crop'"):
        FeatureStore.open(tmp_path / "a", toy, load_backbone("toy", aspect="crop"))
    fewer = toy.keep(np.arange(len(toy))[toy.labels >= 0][:-1])
    with pytest.raises(ValueError, match=r"another picture list \(36 pictures; now 35\)"):
        FeatureStore.open(tmp_path / "a", fewer, backbone)
    with pytest.raises(ValueError, match="holds no features"):
        FeatureStore.open(tmp_path / "b", toy, backbone)


def test_a_damaged_picture_stops_extraction_and_is_named(toy, backbone, tmp_path):
    from dataclasses import replace

    root = tmp_path / "pictures"
    for name in toy.files:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes((toy.root / name).read_bytes())
    (root / toy.files[20]).write_bytes(b"broken")
    with pytest.raises(ValueError, match=toy.files[20].rsplit("/", 1)[1]):
        FeatureStore.extract(replace(toy, root=root), backbone, tmp_path / "store", shard_size=8)
    assert len(shards(tmp_path / "store")) == 2


def test_a_second_writer_waits_for_the_first_and_says_so(toy, backbone, tmp_path, caplog):
    with ThreadPoolExecutor(1) as pool:
        with FileLock(tmp_path / ".lock"):
            second = pool.submit(FeatureStore.extract, toy, backbone, tmp_path)
            late = time.monotonic() + 20
            while "waiting for it" not in caplog.text and time.monotonic() < late:
                time.sleep(0.01)
            assert not (tmp_path / "manifest.json").exists()
        assert len(second.result(timeout=60)) == len(toy)
    assert f"another process is writing {tmp_path}" in caplog.text


def test_values_beyond_half_precision_are_an_error(tmp_path):
    with pytest.raises(ValueError, match="fp16"):
        files.save_shard({"patches": torch.tensor([[70000.0]]).half()}, tmp_path / "shard-00000.safetensors")


def test_default_folder_depends_on_pictures_and_backbone(toy, backbone):
    same = FeatureStore.default_folder(toy, backbone)
    assert same == FeatureStore.default_folder(toy, load_backbone("toy"))
    assert same != FeatureStore.default_folder(toy, load_backbone("toy", aspect="crop"))


@pytest.mark.gpu
def test_extraction_on_cuda_agrees_with_the_cpu(toy, toy_store, tmp_path):
    """bf16 autocast keeps eight bits of mantissa: tokens agree to about 3 % of their spread."""
    store = FeatureStore.extract(toy, load_backbone("toy", device="cuda"), tmp_path).to("cuda")
    rows = torch.arange(len(toy))
    ours, theirs = store.fetch(rows).patches.cpu(), toy_store.fetch(rows).patches
    assert (ours - theirs).abs().mean() < 0.03 * theirs.std()


def test_extraction_waits_for_another_device_once_a_shard(toy, backbone, tmp_path):
    there, waits = copy.deepcopy(backbone).to(META), []
    for batch_size in (4, 16):
        with OtherDevice() as device:
            store = FeatureStore.extract(toy, there, tmp_path / str(batch_size), batch_size=batch_size, shard_size=16)
        waits.append(device.waits)
        assert torch.equal(store.fetch(torch.arange(3)).patches, torch.ones(3, store.n_patches, store.width))
    assert waits[0] == waits[1]
