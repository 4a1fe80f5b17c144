"""Training, fine-tuning, statistics and measures on a device that is not the CPU, in toy and published shapes."""

import numpy as np
import pytest
import torch
from other_device import META, OtherDevice

from qpm_lib import metrics
from qpm_lib.core.profiles import load_profile
from qpm_lib.features.tensors import TensorStore
from qpm_lib.model.outputs import accuracy, correct_rows, feature_vectors, map_locality, outputs_of
from qpm_lib.model.stages import fine_tune, train_dense
from qpm_lib.selection.result import Selection

SHAPES = {"toy": (192, 24), "cub": (768, 200)}


def test_the_device_refuses_mixtures_and_gives_what_cuda_would():
    with OtherDevice():
        there = torch.ones(3).to(META)
        assert there.device == META
        with pytest.raises(RuntimeError, match="device"):
            there @ torch.ones(3)
        with pytest.raises((TypeError, RuntimeError), match="device"):
            there.numpy()
        assert torch.equal(there.cpu(), torch.ones(3))
        assert (float(there[0]), there.tolist()) == (1.0, [1.0, 1.0, 1.0])


def random_store(shape, batches, *, resident=False):
    """Tokens without values; they are moved batch by batch, or lie on the device."""
    (width, classes), size = SHAPES[shape], load_profile(shape).dense.batch_size
    labels = torch.arange(batches * size) % classes
    patches = torch.ones(len(labels), 256, 1).expand(-1, -1, width).to(META if resident else "cpu")
    names = tuple(map(str, range(classes)))
    return TensorStore(patches, patches[:, 0], labels, class_names=names, device=META)


def test_nothing_waits_for_the_device_within_an_epoch():
    waits = []
    for batches in (2, 6):
        with OtherDevice() as device:
            train_dense(random_store("toy", batches), load_profile("toy", **{"dense.epochs": 1}))
        waits.append(device.waits)
    assert waits[0] == waits[1]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("resident", [False, True])
def test_all_stages_stay_on_their_device(shape, resident):
    classes = SHAPES[shape][1]
    changes = {"dense.epochs": 1, "fine_tune.epochs": 1, "dense.l1_maps": 0.1, "dense.l1_vector": 0.1}
    config, store = load_profile(shape, **changes), random_store(shape, 2, resident=resident)
    n, chosen = config.selection.n_features, config.selection.n_per_class
    assignment = np.zeros((classes, n), bool)
    assignment[:, :chosen] = True
    selection = Selection(np.arange(n), assignment, 1.0, 1.0, 0.0, 0.0, "optimal")
    with OtherDevice():
        dense, history = train_dense(store, config)
        model, _ = fine_tune(dense, selection, store, config)
        for one, count in ((dense, config.adapter.n_features), (model, n)):
            assert {p.device for p in (*one.parameters(), *one.buffers())} == {META}
            assert feature_vectors(one, store, torch.arange(5)).shape == (5, count)
        assert accuracy(model, store, train=True) >= 0
        assert len(correct_rows(model, store, train=True)) == len(store)
        assert map_locality(model, store, count=8).shape == (n,)
        out = outputs_of(model, store, torch.arange(4))
        masks = torch.ones(4, 32, 32, dtype=torch.bool).to(META)
        assert np.isfinite(metrics.sid(out.maps, model.class_weight, out.logits.argmax(1), k=2))
        assert np.isfinite(metrics.plausibility(out.maps, model.class_weight, out.logits.argmax(1), masks))
    assert len(history) == 1
    assert history[0].terms.keys() == {"cross_entropy", "diversity", "l1_maps", "l1_vector"}
