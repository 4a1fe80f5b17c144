"""The learned ranking: against a planted truth, the hard measure, a stopped training, and bad input."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from planted_models import random_decoder
from scipy.stats import spearmanr

from qpm_lib import metrics
from qpm_lib.core import RankingConfig
from qpm_lib.core.config import DataConfig
from qpm_lib.data.load import load_dataset
from qpm_lib.explain.ranking.method import LearnedRanking, new_decoder
from qpm_lib.explain.ranking.objective import areas, draw_fractions, hard_areas, reference, shifted_pool
from qpm_lib.explain.ranking.sorting import hard_sort
from qpm_lib.explain.ranking.start import embedded_start
from qpm_lib.explain.ranking.training import train_ranking
from qpm_lib.explain.registry import make
from qpm_lib.explain.target import Target, concept_target

FEW = RankingConfig(steps=60, batch_size=2, fractions=1, levels=4, iterations=5, channels=8)


@pytest.fixture
def learned(make_target):
    """A target on 4 x 4 patches and an explainer with random weights for it."""
    target = make_target("toy", "qpm")
    return LearnedRanking(target, explainer=random_decoder(target))


class Weighted(Target):
    """Class 0 is a weighted mean of the brightness of patches: every patch is worth its weight."""

    def __init__(self, target, weights):
        super().__init__(target.model, target.backbone)
        self.weights = weights

    def __call__(self, pixels):
        light = torch.nn.functional.adaptive_avg_pool2d(pixels.mean(1), self.grid).flatten(1)
        score = 0.4 * light @ self.weights
        return torch.stack([score, -score, torch.full_like(score, -50.0)], 1)


def test_the_order_of_a_planted_linear_model_is_learned(make_target, tmp_path):
    rng, weights = (
        np.random.default_rng(0),
        torch.linspace(0.02, 0.3, 16)[torch.randperm(16, generator=torch.Generator().manual_seed(0))],
    )
    for folder in ("a", "b"):
        (tmp_path / "pictures" / folder).mkdir(parents=True)
        for i in range(8):
            picture = np.full((32, 32, 3), 200, np.uint8) + rng.integers(0, 40, (32, 32, 3), np.uint8)
            Image.fromarray(picture).save(tmp_path / "pictures" / folder / f"{i}.png")
    dataset = load_dataset(DataConfig(kind="folder", root=str(tmp_path / "pictures")))
    target = Weighted(make_target("toy", "probe"), weights)
    config = RankingConfig(
        steps=300, fractions=4, levels=16, noise=0.0, second=0.0, reference="black", lr=1e-2, channels=64
    )
    method = train_ranking(target, dataset, range(len(dataset)), tmp_path / "explainer", config)
    maps = method([dataset.image(0), dataset.image(9)], torch.tensor([0, 0]))
    for found in maps:
        assert spearmanr(found.flatten(), weights).statistic >= 0.95
    start = LearnedRanking(target, explainer=new_decoder(target, 64))([dataset.image(0)], torch.tensor([0]))
    assert start.std() < 1e-3 or spearmanr(start.flatten(), weights).statistic < 0.5


def test_the_first_steps_learn_the_order_of_attn_lrp(make_target, toy, tmp_path):
    target = make_target("toy", "probe")
    config = replace(FEW, steps=80, imitate=80, batch_size=8, lr=1e-2)
    rows = range(0, len(toy), 8)
    images = [target.backbone.square(toy.image(row)) for row in rows]
    with torch.no_grad():
        labels = target(target.pixels(images)).argmax(1)
    wanted = make("attn_lrp", target)(images, labels).flatten(1)

    def likeness(method):
        method.seen = None
        maps = method(images, labels).flatten(1)
        return np.mean([spearmanr(a, b).statistic for a, b in zip(maps, wanted, strict=True)])

    learned = train_ranking(target, toy, rows, tmp_path, config)
    assert not learned.history
    assert likeness(learned) > 0.3 + max(0.0, likeness(LearnedRanking(target, explainer=random_decoder(target))))
    for imitate in (-1, 81):
        with pytest.raises(ValueError, match=rf"ranking.imitate .={imitate}. must be from 0 to ranking.steps .=80."):
            train_ranking(target, toy, rows, tmp_path, replace(config, imitate=imitate))


def test_the_hard_areas_are_the_measure(learned, noise):
    labels = torch.tensor([0, 2, 1])
    maps = learned(noise, labels)
    found = hard_areas(learned.target, learned.target.pixels(noise), maps.flatten(1), labels)
    np.testing.assert_allclose(found.deletion, metrics.deletion(learned.target, noise, maps, labels), rtol=1e-5)
    np.testing.assert_allclose(found.insertion, metrics.insertion(learned.target, noise, maps, labels), rtol=1e-5)


def test_soft_areas_of_a_hard_order_come_to_the_measure(learned, noise):
    """With the order itself, and many fractions, what is trained on is what is measured."""
    target, labels = learned.target, torch.tensor([0, 2, 1])
    pixels, scores = target.pixels(noise), learned(noise, labels).flatten(1)
    with torch.no_grad():
        soft = areas(target, pixels, reference(target, pixels, "mean"), hard_sort(scores), labels, draw_fractions(200))
    hard = hard_areas(target, pixels, scores, labels, steps=17)
    for mine, theirs in zip(soft, hard, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=0.02, atol=0.002)


def test_cells_of_a_shifted_grid_are_means():
    dense = torch.arange(64.0).view(1, 8, 8)
    torch.testing.assert_close(shifted_pool(dense, 2, (0, 0))[0], torch.tensor([13.5, 17.5, 45.5, 49.5]))
    cells = shifted_pool(dense, 2, (1, 2)).view(3, 3)  # the first cell holds 3 rows and 2 columns of the picture
    torch.testing.assert_close(cells[1, 1], dense[0, 3:7, 2:6].mean())


def test_refinement_never_makes_the_measure_worse(learned, noise):
    labels = torch.tensor([0, 2, 1])
    before, after = learned(noise, labels), learned.refine(noise, labels, steps=4, lr=1.0)
    assert after.shape == before.shape
    pixels = learned.target.pixels(noise)
    first, second = (hard_areas(learned.target, pixels, m.flatten(1), labels) for m in (before, after))
    gained = (second.insertion - second.deletion) - (first.insertion - first.deletion)
    assert (gained >= -1e-6).all()
    assert gained.max() > 0
    assert torch.equal(after, learned.refine(noise, labels, steps=4, lr=1.0))
    with pytest.raises(ValueError, match=r"steps \(=0\)"):
        learned.refine(noise, labels, steps=0)


def test_dense_maps_are_means_of_the_map(learned, noise):
    labels = torch.tensor([0, 2, 1])
    dense, maps = learned.dense(noise, labels), learned(noise, labels)
    assert dense.shape == (3, 32, 32)
    pooled = torch.nn.functional.adaptive_avg_pool2d(dense, 4).flatten(1)
    for a, b in zip(pooled, maps.flatten(1), strict=True):
        assert np.corrcoef(a, b)[0, 1] > 0.999


def test_the_same_seed_gives_the_same_explainer_and_a_stopped_training_goes_on(make_target, toy, tmp_path, caplog):
    target = make_target("toy", "qpm")

    watched = {}

    def train(folder, **options):
        method = train_ranking(target, toy, range(len(toy)), tmp_path / folder, FEW, **options)
        watched[folder] = [tuple(pair) for pair in method.watched]
        return method.decoder.state_dict()

    def watch(step, _):
        return step / 7 if step % 7 == 0 else None

    def stop(step, _):
        if step == 54:
            raise KeyboardInterrupt
        return watch(step, _)

    whole = train("whole", on_step=watch)
    assert not any(weight.grad is not None for weight in target.model.parameters())
    with pytest.raises(KeyboardInterrupt):
        train("stopped", on_step=stop)
    assert (tmp_path / "stopped" / "training.safetensors").exists()
    assert not (tmp_path / "stopped" / "model.json").exists()
    steps = []
    resumed = train("stopped", on_step=lambda step, _: steps.append(step) or watch(step, _))
    assert steps == list(range(50, 60))
    assert watched["stopped"] == watched["whole"] == [(step, step / 7) for step in range(0, 60, 7)]
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    assert not (tmp_path / "stopped" / "training.safetensors").exists()
    again = train("whole", on_step=lambda *_: pytest.fail("finished explainers are not trained again"))
    assert all(torch.equal(whole[name], again[name]) for name in whole)
    assert watched["stopped"] == watched["whole"]
    (tmp_path / "whole" / "model.safetensors").write_bytes(b"damaged")
    assert all(torch.equal(whole[name], value) for name, value in train("whole").items())
    other = train("other", seed=1)
    assert not all(torch.equal(whole[name], other[name]) for name in whole)

    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "training.safetensors").write_bytes(b"no tensors")
    assert all(torch.equal(whole[name], value) for name, value in train("damaged").items())
    assert "training begins anew" in caplog.text


def test_a_loss_that_is_not_finite_stops_and_names_the_step(make_target, toy, tmp_path, monkeypatch):
    target, folder = make_target("toy", "qpm"), tmp_path / "explainer"
    answer, asked = type(target).__call__, []

    def broken(self, pixels):
        asked.append(1)
        logits = answer(self, pixels)
        return logits * torch.nan if len(asked) > 15 else logits

    monkeypatch.setattr(type(target), "__call__", broken)
    with pytest.raises(ValueError, match=r"not finite in step 7 at ranking.lr=0.001: lower it.*is kept"):
        train_ranking(target, toy, range(len(toy)), folder, FEW)
    monkeypatch.setattr(type(target), "__call__", answer)
    steps = []
    method = train_ranking(target, toy, range(len(toy)), folder, FEW, on_step=lambda step, _: steps.append(step))
    assert steps[0] == 7
    assert all(weight.isfinite().all() for weight in method.decoder.parameters())


def test_a_resnet_can_be_explained(make_target, toy, tmp_path, noise):
    target = make_target("resnet50", "probe")
    method = train_ranking(target, toy, range(len(toy)), tmp_path, replace(FEW, steps=2))
    method.seen = None
    assert method(noise, torch.tensor([0, 1, 2])).shape == (3, 4, 4)
    assert method.dense(noise, torch.tensor([0, 1, 2])).shape == (3, 128, 128)


def test_several_targets_are_taken_in_turn_without_classes_of_their_own(make_target, toy, tmp_path):
    targets = [make_target("toy", "qpm"), make_target("toy", "probe")]
    method = train_ranking(targets, toy, range(len(toy)), tmp_path, replace(FEW, steps=4))
    assert not method.decoder.of_class.weight.any()
    assert method.decoder.coarse.weight.abs().sum() > 0  # zero before training


def test_an_explainer_is_for_its_own_model(make_target, toy, tmp_path, noise):
    target = make_target("toy", "qpm")
    config = replace(FEW, steps=2, batch_size=1, second=0.0)
    method = train_ranking(target, toy, range(len(toy)), tmp_path, config)
    same = make("ranking", target, explainer=tmp_path)
    labels = torch.tensor([method.seen[0]] * 3)
    assert torch.equal(same(noise, labels), method(noise, labels))
    assert [list(step) for step in same.history] == [list(step) for step in method.history]
    assert len(same.history) == 2
    unseen = next(c for c in range(3) if c not in method.seen)
    with pytest.raises(ValueError, match=rf"class {unseen} was never explained .*ranking.steps"):
        same(noise, torch.tensor([unseen] * 3))
    with pytest.raises(ValueError, match=r"target class \(=3\) is out of range"):
        same(noise, torch.tensor([3] * 3))
    for other in (make_target("toy", "dense"), make_target("dino_vits16", "qpm")):
        with pytest.raises(ValueError, match="was trained for another model, backbone or grid"):
            make("ranking", other, explainer=tmp_path)
    with pytest.raises(ValueError, match="holds no explainer: run chapter 10"):
        make("ranking", target, explainer=tmp_path / "nowhere")
    (tmp_path / "model.safetensors").write_bytes(b"x")
    with pytest.raises(ValueError, match="damaged or does not fit"):
        make("ranking", target, explainer=tmp_path)


def test_what_cannot_be_explained_is_refused(make_target, toy, tmp_path, noise, backbone):
    target = make_target("toy", "qpm")
    with pytest.raises(ValueError, match="needs a trained explainer"):
        make("ranking", target)
    with pytest.raises(ValueError, match="no pictures were given"):
        train_ranking(target, toy, [], tmp_path, FEW)
    with pytest.raises(ValueError, match=r"reference \(='grey'\) must be one of mean, blur, black"):
        reference(target, target.pixels(noise), "grey")
    with pytest.raises(ValueError, match=r"channels \(=6\) a multiple of 4"):
        train_ranking(target, toy, [0], tmp_path, replace(FEW, channels=6))
    with pytest.raises(ValueError, match="choose cdam"):
        train_ranking(concept_target(target.backbone, noise), toy, [0], tmp_path, FEW)

    class Cut(Target):
        def __call__(self, pixels):
            return super().__call__(pixels).detach()

    class Before(Target):
        def __call__(self, pixels):
            return self.read(self.backbone(pixels.detach()))

    for cut in (Cut, Before):
        with pytest.raises(ValueError, match="the target has no gradient"):
            train_ranking(cut(target.model, target.backbone), toy, [0], tmp_path, FEW)
    assert not list(tmp_path.iterdir())
    assert embedded_start(target) is None


def test_the_embedded_start_fits_the_embedded_backbone(target):
    decoder = embedded_start(target)
    assert not decoder.of_class.weight.any()
    assert decoder.coarse.weight.abs().sum() > 0
    assert embedded_start(target, channels=32) is None


@pytest.mark.gpu
def test_a_gpu_trains_nearly_the_same_explainer(make_target, toy, tmp_path, noise):
    target = make_target("toy", "qpm")
    on_gpu = Target(copy.deepcopy(target.model).cuda(), copy.deepcopy(target.backbone).cuda())
    labels, maps = torch.tensor([0, 2, 1]), []
    for name, one in (("cpu", target), ("gpu", on_gpu)):
        method = train_ranking(one, toy, range(len(toy)), tmp_path / name, replace(FEW, steps=5))
        method.seen = None
        maps.append(method(noise, labels))
        method.refine(noise, labels, steps=2)
    torch.testing.assert_close(*maps, rtol=0.05, atol=0.05)
