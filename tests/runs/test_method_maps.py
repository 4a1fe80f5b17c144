"""Maps of methods for the report: what is kept is what the method says, in bytes; damaged files are named."""

import json

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from qpm_lib.core.profiles import load_profile
from qpm_lib.explain.registry import make
from qpm_lib.explain.target import Target
from qpm_lib.runs.folder import RunFolder
from qpm_lib.runs.method_maps import MethodMaps, take_method_maps
from qpm_lib.runs.snapshot import take_snapshot


@pytest.fixture(scope="module")
def taken(tmp_path_factory, untrained, backbone, toy, toy_store):
    model = untrained[0].with_backbone(backbone)
    snapshot = take_snapshot(model, toy, toy_store, tmp_path_factory.mktemp("snapshot"))
    target = Target(model, backbone)
    methods = {name: make(name, target) for name in ("rollout", "cdam")}
    return model, snapshot, methods, take_method_maps(methods, model, toy, snapshot)


def test_maps_are_those_of_the_predicted_class(taken, toy):
    model, snapshot, methods, found = taken
    assert np.array_equal(found.rows, snapshot.rows)
    for name, method in methods.items():
        maps = found.maps[name]
        assert maps.shape == (len(snapshot.rows), 16, 16)
        for i in (0, len(maps) - 1):
            label = int(snapshot.predicted[snapshot.kept[i]])
            heat = method([model.backbone.square(toy.image(int(found.rows[i])))], torch.tensor([label]))[0].numpy()
            heat = heat if name == "cdam" else heat - heat.min()
            np.testing.assert_allclose(maps[i] / 127, heat / np.abs(heat).max(), atol=0.005)
    assert (found.maps["rollout"] >= 0).all()
    assert (found.maps["cdam"] < 0).any()


def test_they_are_read_as_they_were_written(taken, tmp_path):
    taken[3].save(tmp_path, made_by="x")
    found = MethodMaps.load(tmp_path)
    assert list(found.maps) == ["cdam", "rollout"]  # in the order of METHODS
    for name, maps in found.maps.items():
        assert np.array_equal(maps, taken[3].maps[name])
    assert json.loads((tmp_path / "maps.json").read_text())["made_by"] == "x"


def test_a_run_keeps_the_maps_of_other_methods(taken, tmp_path):
    found, run = taken[3], RunFolder(tmp_path, load_profile("smoke"))
    one, other = ({name: found.maps[name]} for name in ("cdam", "rollout"))
    for maps in (one, other, one):
        run.save_method_maps(MethodMaps(found.rows, maps))
    kept = run.load_method_maps().maps
    assert all(np.array_equal(kept[name], found.maps[name]) for name in ("cdam", "rollout"))
    run.save_method_maps(MethodMaps(found.rows + 1, other))  # other pictures: the earlier maps do not belong to them
    assert list(run.load_method_maps().maps) == ["rollout"]


def test_what_is_missing_or_damaged_is_named(taken, tmp_path):
    with pytest.raises(ValueError, match="holds no maps of methods: run chapter 08 first"):
        MethodMaps.load(tmp_path)
    taken[3].save(tmp_path)
    whole = load_file(tmp_path / "maps.safetensors")
    save_file({**whole, "maps/cdam": whole["maps/cdam"][:1]}, tmp_path / "maps.safetensors")
    with pytest.raises(ValueError, match="do not fit the pictures.*run chapter 08 again"):
        MethodMaps.load(tmp_path)
    (tmp_path / "maps.safetensors").write_bytes(b"no tensors")
    with pytest.raises(ValueError, match="is damaged .*run chapter 08 again"):
        MethodMaps.load(tmp_path)
