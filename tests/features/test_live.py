"""The backbone run live gives what the store holds, and varies pictures in training only."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

import qpm_lib
from qpm_lib.core.config import AdapterConfig
from qpm_lib.core.profiles import load_profile
from qpm_lib.features.live import LiveFeatures, varied
from qpm_lib.runs.folder import RunFolder


def test_live_features_are_those_of_the_store(toy, toy_store, backbone):
    live, rows = LiveFeatures(toy, backbone, augment="crop"), torch.tensor([5, 0, 17])
    ours, stored = live.fetch(rows), toy_store.fetch(rows)
    torch.testing.assert_close(ours.patches, stored.patches, rtol=2e-3, atol=4e-3)
    torch.testing.assert_close(ours.cls, stored.cls, rtol=2e-3, atol=4e-3)
    assert (ours.labels == stored.labels).all()
    np.testing.assert_allclose(live.cls_tokens(rows), toy_store.cls_tokens(rows), rtol=2e-3, atol=4e-3)
    assert (len(live), live.width, live.grid, live.class_names) == (len(toy_store), 192, 16, toy_store.class_names)


def test_shuffled_batches_vary_and_follow_the_seed(toy, backbone):
    rows = torch.arange(6)

    def batch(augment, seed, workers=0):
        live = LiveFeatures(toy, backbone, augment=augment, workers=workers)
        return next(live.batches(rows, 6, generator=torch.Generator().manual_seed(seed)))

    plain, first, again, other = batch("none", 1), batch("crop", 1), batch("crop", 1, workers=1), batch("crop", 2)
    assert (plain.labels == first.labels).all()
    torch.testing.assert_close(first.patches, again.patches)
    assert not torch.allclose(first.patches, plain.patches, atol=1e-2)
    assert not torch.allclose(first.patches, other.patches, atol=1e-2)


def test_processes_are_kept_over_epochs_unless_one_was_left(toy, backbone):
    def processes(store):
        return [worker.pid for worker in store._idle._iterator._workers]

    store, rows = LiveFeatures(toy, backbone, augment="flip", workers=1), torch.arange(6)
    alone = LiveFeatures(toy, backbone, augment="flip")
    first = [b.labels.tolist() for b in store.batches(rows, 4, generator=torch.Generator().manual_seed(0))]
    before = processes(store)
    batch = next(iter(store.batches(rows, 4)))  # left in the middle
    torch.testing.assert_close(batch.patches, next(iter(alone.batches(rows, 4))).patches)
    generators = torch.Generator().manual_seed(1), torch.Generator().manual_seed(1)
    for one, other in zip(
        *(s.batches(rows, 2, generator=g) for s, g in zip((store, alone), generators, strict=True)), strict=True
    ):
        torch.testing.assert_close(one.patches, other.patches)
    assert len(first) == 2
    again = processes(store)
    list(store.batches(rows, 3))
    assert processes(store) == again != before


def test_pictures_are_mirrored_or_cut():
    image = Image.fromarray((np.arange(60 * 40 * 3).reshape(40, 60, 3) % 251).astype(np.uint8))
    assert varied(image, "none", 3) is image
    mirrored = [np.array_equal(np.asarray(varied(image, "flip", s)), np.asarray(image)[:, ::-1]) for s in range(40)]
    same = [np.array_equal(np.asarray(varied(image, "flip", s)), np.asarray(image)) for s in range(40)]
    assert all(m != s for m, s in zip(mirrored, same, strict=True))
    assert 8 < sum(mirrored) < 32
    shares = [np.prod(varied(image, "crop", s).size) / (60 * 40) for s in range(200)]
    assert 0.55 < min(shares) < 0.65
    assert max(shares) > 0.95
    assert varied(Image.new("RGB", (1, 1)), "crop", 0).size == (1, 1)


def test_a_run_takes_live_features_where_the_settings_say_so(toy, backbone, tmp_path):
    for settings, augment in (({"features.live": "true"}, "none"), ({"data.augment": "flip"}, "flip")):
        run = RunFolder(tmp_path, load_profile("smoke", **settings))
        store = run.features(toy, backbone)
        assert isinstance(store, LiveFeatures)
        assert store.augment == augment
    assert not isinstance(RunFolder(tmp_path, load_profile("smoke")).features(toy, backbone), LiveFeatures)
    with pytest.raises(ValueError, match="data.augment"):
        load_profile("smoke", **{"data.augment": "rotate"})


def test_training_goes_through(toy, backbone):
    config = load_profile("smoke", **{"dense.epochs": 3, "dense.batch_size": 12})
    config = replace(config, adapter=AdapterConfig(n_layers=1, hidden=8, n_features=8))
    dense, history = qpm_lib.train_dense(LiveFeatures(toy, backbone, augment="flip"), config)
    assert len(history) == 3
    assert np.isfinite(history[0].accuracy)
    assert history[-1].terms["cross_entropy"] < history[0].terms["cross_entropy"]
    assert dense.class_weight.shape == (4, 8)


def test_a_training_that_ended_with_its_epoch_goes_on(toy, backbone):
    """Nothing is left of an epoch whose batches were all done; and how many processes there are moves no generator."""
    store, rows = LiveFeatures(toy, backbone, augment="flip", workers=1), torch.arange(8)
    before = torch.get_rng_state()
    assert list(store.batches(rows, 4, generator=torch.Generator().manual_seed(0), skip=2)) == []
    assert len(list(store.batches(rows, 4, generator=torch.Generator().manual_seed(0)))) == 2
    assert torch.equal(torch.get_rng_state(), before)
