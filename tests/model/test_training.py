import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import N_CLASSES, make_store
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

import qpm_lib
from qpm_lib.core.config import TrainingConfig
from qpm_lib.model import training
from qpm_lib.model.outputs import accuracy, feature_vectors
from qpm_lib.model.stages import train_dense, train_linear_probe
from qpm_lib.model.training import fit


def test_the_dense_model_learns_planted_classes(planted, trained):
    store, _ = planted
    assert accuracy(trained[0], store) == 1.0
    assert not trained[0].training


def test_fine_tuning_learns_planted_classes(planted, trained):
    store, _ = planted
    _, chosen, model, history = trained
    assert accuracy(model, store) == 1.0
    assert (model.class_weight.sum(1) == 2).all()
    assert len({tuple(r) for r in model.class_weight.tolist()}) == N_CLASSES
    assert history[-1].terms["l1_maps"] < history[0].terms["l1_maps"]
    np.testing.assert_array_equal(model.class_weight.numpy() > 0, chosen.assignment)


def test_the_head_keeps_the_statistics_of_the_dense_features(planted, trained):
    store, _ = planted
    dense, chosen, model, _ = trained
    vectors = feature_vectors(dense, store, store.rows(train=True))[:, chosen.features]
    np.testing.assert_allclose(model.head.mean, vectors.mean(0), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(model.head.std, vectors.std(0).clip(1e-6), rtol=1e-4, atol=1e-6)


def test_fine_tuning_leaves_the_dense_model_alone(planted, planted_config, trained):
    store, _ = planted
    dense, chosen, _, _ = trained
    before = {k: v.clone() for k, v in dense.state_dict().items()}
    qpm_lib.fine_tune(
        dense, chosen, store, replace(planted_config, fine_tune=replace(planted_config.fine_tune, epochs=1))
    )
    assert all(torch.equal(before[k], v) for k, v in dense.state_dict().items())


def test_same_seed_same_result(planted, planted_config):
    store, _ = planted
    config = replace(planted_config, dense=replace(planted_config.dense, epochs=2))
    one, two, other = (train_dense(store, replace(config, seed=s))[0].state_dict() for s in (0, 0, 1))
    assert all(torch.equal(one[k], two[k]) for k in one)
    assert any(not torch.equal(one[k], other[k]) for k in one)


@pytest.mark.parametrize("stops", [[1], [7], [3, 4, 6]])
def test_a_stopped_training_goes_on_with_the_same_result(stops, planted, planted_config, tmp_path, monkeypatch):
    """Stopped before these batches, in the middle of epochs or at their ends: to the bit, dropout included."""
    store = copy.copy(planted[0])  # what is taken back on the one that all tests share would stay on it
    config = replace(planted_config, dense=replace(planted_config.dense, epochs=3, batch_size=8, dropout=0.3))
    whole, history = train_dense(store, config)
    monkeypatch.setattr("qpm_lib.core.checkpoints._EVERY", -1.0)
    fetch, fetched, left = store.fetch, [0], list(stops)

    def stopping(rows):
        fetched[0] += 1
        if left and fetched[0] > left[0]:
            left.pop(0)
            raise KeyboardInterrupt
        return fetch(rows)

    monkeypatch.setattr(store, "fetch", stopping)
    place = tmp_path / "training.safetensors"
    for _ in stops:
        with pytest.raises(KeyboardInterrupt):
            train_dense(store, config, checkpoint=place)
        fetched[0] = 0
        torch.rand(5)  # whatever happens in between
    resumed, again = train_dense(store, config, checkpoint=place)
    assert again == history
    assert all(torch.equal(value, resumed.state_dict()[name]) for name, value in whole.state_dict().items())
    done = fetched[0]
    finished, _ = train_dense(store, config, checkpoint=place)
    assert fetched[0] - done < done  # only the statistics of the norms
    assert all(torch.equal(value, finished.state_dict()[name]) for name, value in whole.state_dict().items())


def test_a_checkpoint_of_another_training_or_a_damaged_one_is_not_taken(planted, planted_config, tmp_path, caplog):
    store, _ = planted
    config = replace(planted_config, dense=replace(planted_config.dense, epochs=1))
    place, other = tmp_path / "training.safetensors", replace(config, seed=1)
    train_dense(store, other, checkpoint=place)
    expected = train_dense(store, config)[0].state_dict()
    found = train_dense(store, config, checkpoint=place)[0].state_dict()
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    place.write_bytes(place.read_bytes()[:1000])
    found = train_dense(store, config, checkpoint=place)[0].state_dict()
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    assert "is damaged: training begins anew" in caplog.text


def test_history_counts_every_picture(planted, planted_config):
    store, _ = planted
    seen = []
    config = replace(planted_config, dense=replace(planted_config.dense, epochs=3, batch_size=13))
    _, history = train_dense(store, config, on_epoch=seen.append)
    assert seen == history
    assert [h.epoch for h in history] == [1, 2, 3]
    n = len(store.rows(train=True))
    assert all(abs(h.accuracy * n - round(h.accuracy * n)) < 1e-4 for h in history)
    assert set(history[0].terms) == {"cross_entropy", "diversity"}


def test_a_diverging_run_names_the_learning_rate(planted, planted_config):
    store, _ = planted
    model = train_dense(store, replace(planted_config, dense=replace(planted_config.dense, epochs=1)))[0]
    with pytest.raises(ValueError, match=r"not finite in epoch 1 at lr=1e\+38"):
        fit(model, store, TrainingConfig(epochs=2, lr=1e38), seed=0)


def test_batch_norm_statistics_fit_the_final_weights(planted, trained):
    """In evaluation mode the features look as they do with the statistics of the training pictures."""
    store, _ = planted
    dense = trained[0]
    batch = store.fetch(store.rows(train=True))
    evaluated = dense.adapter(batch.patches)
    dense.adapter.train()
    momentum = dense.adapter.layers[1].momentum
    dense.adapter.layers[1].momentum = 0.0
    trained_mode = dense.adapter(batch.patches)
    dense.adapter.layers[1].momentum = momentum
    dense.eval()
    assert (evaluated - trained_mode).abs().mean() < 0.05 * trained_mode.std()


def test_linear_probe_is_logistic_regression(planted):
    store, _ = planted
    probe = train_linear_probe(store, strengths=(0.1,))
    train, test = store.rows(train=True), store.rows(train=False)
    scaler = StandardScaler().fit(store.cls_tokens(train))
    reference = LogisticRegression(C=0.1, max_iter=1000).fit(
        scaler.transform(store.cls_tokens(train)), store.labels[train]
    )
    batch = store.fetch(test)
    expected = reference.decision_function(scaler.transform(store.cls_tokens(test)))
    np.testing.assert_allclose(probe(batch.patches, batch.cls).logits, expected, atol=1e-3)


def test_linear_probe_for_two_classes(tmp_path):
    store, _ = make_store(tmp_path)
    store.labels, store.class_names = store.labels // 2, ("a", "b")
    probe = train_linear_probe(store)
    batch = store.fetch(store.rows(train=False))
    assert probe(batch.patches, batch.cls).logits.shape == (len(batch.labels), 2)
    assert accuracy(probe, store) > 0.9


@pytest.mark.gpu
def test_training_on_cuda_agrees_with_the_cpu(planted, planted_config, tmp_path):
    """One epoch in bf16: losses agree to 5 %, and the planted classes are learned."""
    store, _ = planted
    cuda, _ = make_store(tmp_path)
    config = replace(planted_config, dense=replace(planted_config.dense, epochs=1, dropout=0.0))
    here, there = (train_dense(s, config)[1][0].terms["cross_entropy"] for s in (store, cuda.to("cuda")))
    assert there == pytest.approx(here, rel=0.05)
    assert accuracy(train_dense(cuda, planted_config)[0], cuda) > 0.9


@pytest.mark.gpu
def test_on_cuda_nothing_waits_within_an_epoch_memory_stays_and_runs_are_equal(planted_config, tmp_path, monkeypatch):
    """From the end of the first batch to the end of the epoch, waiting for the GPU is an error."""
    store, _ = make_store(tmp_path)
    store.to("cuda")
    count, finish, waiting = training._State.count, training._State.finish, torch.cuda.set_sync_debug_mode
    monkeypatch.setattr(training._State, "count", lambda *rest: (count(*rest), waiting("error")))
    monkeypatch.setattr(training._State, "finish", lambda *rest: (waiting("default"), finish(*rest))[1])
    config = replace(planted_config, dense=replace(planted_config.dense, epochs=4))
    used, models = [], []
    try:
        for _ in range(2):
            model, _ = train_dense(store, config, on_epoch=lambda _: used.append(torch.cuda.memory_allocated()))
            models.append(model.state_dict())
    finally:
        waiting("default")
    assert used[3] <= used[1]
    for name, tensor in models[0].items():
        assert torch.equal(tensor, models[1][name]), name
