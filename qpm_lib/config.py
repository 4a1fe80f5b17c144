"""Settings of a run: frozen dataclasses, named profiles, and overrides that are checked before anything starts."""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass, replace
from typing import Any, Literal, get_args, get_origin, get_type_hints

from qpm_lib.artifacts import content_hash


@dataclass(frozen=True)
class DataConfig:
    """Which pictures. `root` may stay empty for the toy birds, which are then rendered into the cache; `crop` cuts pictures to their boxes.

    `augment` varies training pictures (mirrored, or also cut), which needs the backbone run live and so takes much longer.
    """

    kind: Literal["toybirds", "cub", "cars", "aircraft", "folder", "csv"] = "toybirds"
    root: str = ""
    n_species: int = 24
    train_per_class: int = 100
    test_per_class: int = 40
    test_share: float = 0.3
    seed: int = 3
    skip_damaged: bool = False
    crop: bool = False
    augment: Literal["none", "flip", "crop"] = "none"


@dataclass(frozen=True)
class BackboneConfig:
    """Which frozen backbone, at which input size in pixels (0: its own), and how pictures that are not square are fitted."""

    name: str = "toy"
    weights: str = ""
    image_size: int = 0
    aspect: Literal["squash", "crop"] = "squash"


@dataclass(frozen=True)
class FeatureConfig:
    """How features are extracted; none of these change the result beyond rounding to fp16.

    `live` runs the backbone anew in every epoch and stores nothing.
    """

    batch_size: int = 64
    shard_size: int = 512
    workers: int = 0
    live: bool = False


@dataclass(frozen=True)
class AdapterConfig:
    """The token-wise MLP D -> hidden -> ... -> n_features, and how its maps become a vector."""

    n_layers: int = 2
    hidden: int = 256
    n_features: int = 128
    pooling: Literal["avg", "max", "cls", "cls_avg"] = "avg"


@dataclass(frozen=True)
class TrainingConfig:
    """One training stage. The last three are the weights of the loss terms beside the cross-entropy."""

    epochs: int = 25
    lr: float = 1e-3
    weight_decay: float = 7e-4
    batch_size: int = 32
    dropout: float = 0.0
    diversity: float = 0.0
    l1_maps: float = 0.0
    l1_vector: float = 0.0


@dataclass(frozen=True)
class SelectionConfig:
    """How features and class weights are picked: n features in all, k per class.

    `method` is the quadratic programme (`qpm`, with its redundancy rule and when to stop) or one of the two sparse linear baselines, in
    which a class has k features on average. `rounds` is the schedule of Q-SENN: `intended` by its paper (a seventh of the epochs in each
    of three rounds, the rest in the last, falling learning rate), or four equal ones as the DINO-QPM release ran it.
    """

    method: Literal["qpm", "sldd", "qsenn"] = "qpm"
    n_features: int = 24
    n_per_class: int = 5
    rounds: Literal["intended", "released"] = "intended"
    redundancy: str = "as_coded"
    gap: float = 0.005
    time_limit: float = 600.0


@dataclass(frozen=True)
class RunConfig:
    """All settings of a run. `device` is `auto`, `cpu` or `cuda`."""

    profile: str = "toy"
    seed: int = 0
    device: str = "auto"
    data: DataConfig = field(default_factory=DataConfig)
    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    features: FeatureConfig = field(default_factory=FeatureConfig)
    adapter: AdapterConfig = field(default_factory=AdapterConfig)
    dense: TrainingConfig = field(default_factory=TrainingConfig)
    selection: SelectionConfig = field(default_factory=SelectionConfig)
    fine_tune: TrainingConfig = field(default_factory=TrainingConfig)


_DENSE = TrainingConfig(epochs=25, lr=1e-3, weight_decay=7e-4, batch_size=32, dropout=0.2, diversity=0.5)
_FINE_TUNE = TrainingConfig(epochs=25, lr=5e-3, weight_decay=8e-4, batch_size=16, diversity=1.0, l1_maps=5.0, l1_vector=1.0)
_PUBLISHED = RunConfig(
    profile="cub",
    data=DataConfig(kind="cub"),
    backbone=BackboneConfig(name="dinov2_vitb14_reg"),
    features=FeatureConfig(workers=2),
    adapter=AdapterConfig(n_layers=4, hidden=2048, n_features=512),
    dense=_DENSE,
    selection=SelectionConfig(n_features=50, n_per_class=5, time_limit=10_800.0),
    fine_tune=_FINE_TUNE,
)
_TOY = RunConfig(
    dense=replace(_DENSE, epochs=20),
    selection=SelectionConfig(gap=0.0, time_limit=60.0),
    fine_tune=replace(_FINE_TUNE, diversity=0.5, l1_maps=4.0),
)

PROFILES: Mapping[str, RunConfig] = {
    "toy": _TOY,
    "smoke": replace(
        _TOY,
        profile="smoke",
        data=DataConfig(n_species=6, train_per_class=16, test_per_class=8),
        adapter=AdapterConfig(n_layers=2, hidden=64, n_features=48),
        dense=replace(_DENSE, epochs=8),
        selection=SelectionConfig(n_features=10, n_per_class=3, gap=0.0, time_limit=30.0),
        fine_tune=replace(_TOY.fine_tune, epochs=8),
    ),
    "cub": _PUBLISHED,
    "cars": replace(_PUBLISHED, profile="cars", data=DataConfig(kind="cars")),
    "aircraft": replace(_PUBLISHED, profile="aircraft", data=DataConfig(kind="aircraft")),
    "folder": replace(_PUBLISHED, profile="folder", data=DataConfig(kind="folder")),
}

# What choosing a baseline changes in the fine-tuning of a profile, as published; epochs are times those of the profile. The dense model
# stays that of QPM (the published baselines train theirs for 40 epochs), so that runs differ in nothing but the class layer.
_BASELINES: Mapping[str, tuple[float, Mapping[str, float]]] = {
    "sldd": (2.0, {"dropout": 0.1, "diversity": 0.196, "l1_maps": 0.0, "l1_vector": 0.0}),
    "qsenn": (2.8, {"dropout": 0.1, "diversity": 0.196, "l1_maps": 0.0, "l1_vector": 0.0}),
}

# What each stage's result depends on; a stage also depends on everything the stages before it depend on.
STAGES: Mapping[str, tuple[str, ...]] = {
    "features": ("data", "backbone"),
    "dense": ("seed", "adapter", "dense"),
    "selection": ("selection",),
    "model": ("fine_tune",),
}


def stage_key(config: RunConfig, stage: str) -> str:
    """Hash of all settings that the result of a stage depends on."""
    names: list[str] = []
    for name, sections in STAGES.items():
        names += sections
        if name == stage:
            return content_hash({section: getattr(config, section) for section in names})
    raise ValueError(f"unknown stage {stage!r}: choose from {', '.join(STAGES)}")


def setting_names() -> list[str]:
    """All settings as dotted keys, such as `dense.epochs`."""
    keys = []
    for top in fields(RunConfig):
        section = getattr(RunConfig(), top.name)
        keys += [f"{top.name}.{f.name}" for f in fields(section)] if is_dataclass(section) else [top.name]
    return [key for key in keys if key != "profile"]


def _parse(key: str, kind: Any, value: Any) -> Any:
    """Bring a value to the type of a setting; strings are read as the command line gives them."""
    if get_origin(kind) is Literal:
        if value not in get_args(kind):
            raise ValueError(f"{key} (={value!r}) must be one of {', '.join(map(str, get_args(kind)))}")
        return value
    try:
        if kind is bool:
            return value if isinstance(value, bool) else {"true": True, "false": False}[str(value).lower()]
        if isinstance(value, bool) or (kind is int and isinstance(value, float) and value != int(value)):
            raise ValueError
        return kind(value)
    except (KeyError, ValueError, TypeError):
        wanted = {bool: "true or false", int: "a whole number", float: "a number"}[kind]
        raise ValueError(f"{key} (={value!r}) must be {wanted}") from None


def read_redundancy_rule(rule: str | float) -> str | float:
    """Read a redundancy rule: a name, or a share of pairs in (0, 1], also as text.

    Raises
    ------
    ValueError : for anything else.
    """
    if rule in ("as_coded", "as_written", "none"):
        return rule
    try:
        share = float(rule)
    except ValueError:
        share = -1.0
    if not 0 < share <= 1:
        raise ValueError(f"selection.redundancy (={rule!r}) must be as_coded, as_written, none, or a share of pairs above 0 and at most 1")
    return share


_ABOVE_ZERO = (
    "data.n_species", "data.train_per_class", "data.test_per_class", "features.batch_size", "features.shard_size",
    "adapter.n_layers", "adapter.hidden", "adapter.n_features", "selection.n_features", "selection.n_per_class", "selection.time_limit",
    "dense.epochs", "dense.batch_size", "dense.lr", "fine_tune.epochs", "fine_tune.batch_size", "fine_tune.lr",
)  # fmt: skip
_SHARES = ("dense.dropout", "fine_tune.dropout", "data.test_share")


def _check(config: RunConfig) -> None:
    """Refuse values that cannot work, before anything is computed."""
    for key in setting_names():
        head, _, tail = key.partition(".")
        value = getattr(getattr(config, head), tail) if tail else getattr(config, head)
        if isinstance(value, str | bool):
            continue
        if not 0 <= value < float("inf") or (key in _ABOVE_ZERO and value == 0):
            raise ValueError(f"{key} (={value}) must be a finite number {'above 0' if key in _ABOVE_ZERO else 'of at least 0'}")
        if key in _SHARES and value >= 1:
            raise ValueError(f"{key} (={value}) must be below 1")
    if config.selection.method == "qsenn" and config.fine_tune.epochs < 4:
        raise ValueError(f"fine_tune.epochs (={config.fine_tune.epochs}) must be at least 4: Q-SENN trains in four rounds")
    n, k, total = config.selection.n_features, config.selection.n_per_class, config.adapter.n_features
    if n > total:
        raise ValueError(f"selection.n_features (={n}) exceeds adapter.n_features (={total}): lower the first or raise the second")
    if k > n:
        raise ValueError(f"selection.n_per_class (={k}) exceeds selection.n_features (={n}): lower the first or raise the second")
    read_redundancy_rule(config.selection.redundancy)
    if config.device not in ("auto", "cpu", "cuda") and not config.device.startswith("cuda:"):
        raise ValueError(f"device (={config.device!r}) must be auto, cpu, cuda or cuda:<number>")


def with_settings(config: RunConfig, settings: Mapping[str, Any]) -> RunConfig:
    """A copy with some settings changed.

    Parameters
    ----------
    settings : dotted keys and their values, for example `{"dense.epochs": 3}`; strings are converted to the setting's type.

    Raises
    ------
    ValueError : for an unknown key (the nearest known ones are named), a value of the wrong type, or values that contradict each other.
    """
    known = setting_names()
    for key, value in settings.items():
        if key not in known:
            near = difflib.get_close_matches(key, known, n=3, cutoff=0.4) or known
            raise ValueError(f"unknown setting {key!r}: did you mean {', '.join(near)}? All settings: qpm run --help")
        head, _, tail = key.partition(".")
        section = getattr(config, head) if tail else config
        name = tail or head
        changed = replace(section, **{name: _parse(key, get_type_hints(type(section))[name], value)})
        config = replace(config, **{head: changed}) if tail else changed
    _check(config)
    return config


def load_profile(name: str, **overrides: Any) -> RunConfig:
    """Settings of a named profile. Choosing `selection.method` also brings that method's own fine-tuning, unless it is set as well.

    Parameters
    ----------
    name : `toy`, `smoke`, `cub` (the published values for CUB-200-2011), `cars`, `aircraft` (the same values) or `folder` (your own
        pictures).
    overrides : changed settings; a dot is written in a dictionary, `load_profile("toy", **{"dense.epochs": 3})`.

    Raises
    ------
    ValueError : for an unknown profile or setting, or a value that does not fit.
    """
    if name not in PROFILES:
        raise ValueError(f"unknown profile {name!r}: choose from {', '.join(PROFILES)}")
    config = PROFILES[name]
    longer, changes = _BASELINES.get(str(overrides.get("selection.method")), (1.0, {}))
    if overrides.get("selection.rounds") == "released":
        longer = 4.0
    tuning = replace(config.fine_tune, epochs=round(longer * config.fine_tune.epochs), **changes)
    return with_settings(replace(config, fine_tune=tuning), overrides)


def dotted(values: Mapping[str, Any]) -> dict[str, Any]:
    """Settings as one dictionary with dotted keys, from the nested one that `asdict` makes."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat.update({f"{key}.{k}": v for k, v in value.items()} if isinstance(value, Mapping) else {key: value})
    return flat


def config_from_dict(values: Mapping[str, Any]) -> RunConfig:
    """The settings that `asdict` wrote to JSON, checked as if they had been typed."""
    flat = dotted(values)
    profile = flat.pop("profile", "toy")
    return replace(with_settings(RunConfig(), flat), profile=str(profile))
