"""Explanation methods, the measures of them, clusters and the learned ranking on a device that is not the CPU."""

import copy
from dataclasses import replace

import pytest
import torch
from other_device import META, OtherDevice
from planted_models import random_decoder

from qpm_lib import metrics
from qpm_lib.core.profiles import load_profile
from qpm_lib.explain.clusters import Clusters
from qpm_lib.explain.ranking.training import train_ranking
from qpm_lib.explain.registry import METHODS, make
from qpm_lib.explain.target import Target

CHEAP = {"smooth_cdam": {"steps": 3}, "integrated_cdam": {"steps": 3}, "integrated_gradients": {"steps": 3}}
CHEAP |= {"rise": {"masks": 24, "cells": 3}}
CASES = [(name, kind) for name in METHODS for kind in ("probe", "dense", "qpm") if name != "intrinsic" or kind == "qpm"]


def moved(target):
    return Target(copy.deepcopy(target.model).to(META), copy.deepcopy(target.backbone).to(META))


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_every_method_stays_on_its_device(name, kind, make_target, noise):
    there = moved(make_target("toy", kind))
    with OtherDevice():
        options = {"explainer": random_decoder(there).to(META)} if name == "ranking" else CHEAP.get(name, {})
        maps = make(name, there, **options)(noise, torch.tensor([0, 2, 1]))
    assert maps.shape == (3, 4, 4)
    assert maps.device.type == "cpu"


def test_a_method_that_forgets_its_device_is_found(make_target, noise, monkeypatch):
    there = moved(make_target("toy", "probe"))
    monkeypatch.setattr(there, "classes", lambda targets, count: targets)
    with OtherDevice(), pytest.raises(RuntimeError, match="device"):
        make("cdam", there)(noise, torch.tensor([0, 2, 1]))


@pytest.mark.parametrize("measure", ["deletion", "insertion"])
def test_measures_of_faithfulness_stay_on_their_device(measure, make_target, noise):
    there = moved(make_target("toy", "qpm"))
    with OtherDevice():
        found = getattr(metrics, measure)(there, noise, torch.rand(3, 4, 4), torch.tensor([0, 2, 1]))
    assert found.shape == (3,)


def test_clusters_and_rankings_stay_on_their_device(make_target, toy, noise, tmp_path):
    there = moved(make_target("toy", "qpm"))
    with OtherDevice():
        rows = torch.rand(40, 6)
        assert Clusters.fit(rows, 3).assign(rows.to(META)).shape == (40,)
        config = replace(load_profile("smoke").ranking, steps=2, imitate=1)
        method = train_ranking(there, toy, range(len(toy)), tmp_path / "explainer", config)
        assert method(noise, torch.tensor([0, 2, 1])).shape == (3, 4, 4)
        assert method.refine(noise, torch.tensor([0, 2, 1]), steps=2).shape == (3, 4, 4)
