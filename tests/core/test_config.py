from dataclasses import FrozenInstanceError, asdict, replace

import pytest

from qpm_lib.backbones.registry import BACKBONES
from qpm_lib.core.artifacts import content_hash
from qpm_lib.core.config import STAGES, RunConfig, stage_key
from qpm_lib.core.profiles import PROFILES, load_profile
from qpm_lib.core.settings import config_from_dict, setting_names, with_settings


@pytest.mark.parametrize("name", PROFILES)
def test_profiles_are_valid_and_survive_json(name):
    config = load_profile(name)
    assert config.profile == name
    assert config_from_dict(asdict(config)) == config


def test_cub_profile_holds_the_published_values():
    config = load_profile("cub")
    assert (config.adapter.n_layers, config.adapter.hidden, config.adapter.n_features) == (4, 2048, 512)
    assert (config.selection.n_features, config.selection.n_per_class, config.selection.gap) == (50, 5, 0.005)
    assert (
        config.dense.epochs,
        config.dense.lr,
        config.dense.weight_decay,
        config.dense.batch_size,
        config.dense.dropout,
    ) == (25, 1e-3, 7e-4, 32, 0.2)
    assert (config.fine_tune.lr, config.fine_tune.weight_decay, config.fine_tune.batch_size) == (5e-3, 8e-4, 16)
    assert (
        config.dense.diversity,
        config.fine_tune.diversity,
        config.fine_tune.l1_maps,
        config.fine_tune.l1_vector,
    ) == (0.5, 1.0, 5.0, 1.0)
    assert config.backbone.name == "dinov2_vitb14_reg"
    assert BACKBONES[config.backbone.name].image_size == 224


def test_settings_are_read_from_text():
    config = load_profile(
        "toy",
        **{
            "dense.epochs": "3",
            "dense.lr": "1e-2",
            "data.skip_damaged": "true",
            "backbone.aspect": "crop",
            "seed": "7",
        },
    )
    assert (config.dense.epochs, config.dense.lr, config.data.skip_damaged, config.backbone.aspect, config.seed) == (
        3,
        0.01,
        True,
        "crop",
        7,
    )


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("dense.epoch", 3, ["dense.epoch", "dense.epochs"]),
        ("dense.epochs", "many", ["dense.epochs", "many", "whole number"]),
        ("dense.epochs", 2.5, ["whole number"]),
        ("dense.epochs", True, ["whole number"]),
        ("dense.epochs", 0, ["dense.epochs", "above 0"]),
        ("seed", 2**32, ["seed", "below 2**32"]),
        ("dense.lr", "nan", ["dense.lr"]),
        ("dense.weight_decay", "nan", ["dense.weight_decay", "finite"]),
        ("fine_tune.l1_maps", "inf", ["fine_tune.l1_maps", "finite"]),
        ("selection.gap", -1, ["selection.gap", "at least 0"]),
        ("seed", -5, ["seed", "at least 0"]),
        ("features.workers", -1, ["features.workers"]),
        ("data.skip_damaged", "maybe", ["true or false"]),
        ("data.kind", "video", ["toybirds, cub, cars, aircraft, folder, csv"]),
        ("selection.n_features", 1000, ["1000", "adapter.n_features"]),
        ("selection.n_per_class", 99, ["99", "selection.n_features"]),
        ("selection.redundancy", "sometimes", ["as_coded"]),
        ("dense.dropout", 1.0, ["dense.dropout"]),
        ("device", "tpu", ["tpu", "cpu"]),
    ],
)
def test_bad_settings_are_named_with_the_way_out(key, value, words):
    with pytest.raises(ValueError) as error:
        load_profile("toy", **{key: value})
    for word in words:
        assert word in str(error.value)


def test_unknown_profile_lists_the_known_ones():
    with pytest.raises(ValueError, match="smoke"):
        load_profile("big")


def test_config_is_frozen():
    with pytest.raises(FrozenInstanceError):
        load_profile("toy").seed = 3


def test_every_setting_has_a_name():
    assert {"seed", "device", "data.root", "selection.gap", "fine_tune.l1_maps"} <= set(setting_names())


def test_stage_keys_follow_what_a_stage_depends_on():
    base = load_profile("toy")
    changes = {
        "data.seed": "features",
        "adapter.hidden": "dense",
        "seed": "dense",
        "selection.gap": "selection",
        "fine_tune.epochs": "model",
    }
    for setting, first in changes.items():
        changed = with_settings(
            base, {setting: 64 if "." in setting else 9} if setting != "selection.gap" else {setting: 0.1}
        )
        different = [stage_key(base, s) != stage_key(changed, s) for s in STAGES]
        assert different == [list(STAGES).index(s) >= list(STAGES).index(first) for s in STAGES], setting
    for setting in ("features.batch_size", "features.workers"):
        assert all(stage_key(base, s) == stage_key(with_settings(base, {setting: 3}), s) for s in STAGES)
    assert stage_key(replace(base, device="cpu"), "model") == stage_key(base, "model")
    with pytest.raises(ValueError, match="unknown stage"):
        stage_key(RunConfig(), "cooking")


def test_the_key_of_a_stage_is_the_hash_of_its_sections():
    """Composed from texts that are kept, and equal to the hash of them all; a whole number is not the same number."""
    config, names = load_profile("toy", seed=3), []
    for stage, sections in STAGES.items():
        names += sections
        assert stage_key(config, stage) == content_hash({name: getattr(config, name) for name in names})
    whole = replace(config, dense=replace(config.dense, dropout=0))
    assert stage_key(whole, "dense") != stage_key(replace(config, dense=replace(config.dense, dropout=0.0)), "dense")
