"""Settings of a run: frozen dataclasses, and which of them each stage of the method depends on."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Literal

from qpm_lib.core.artifacts import text_hash, to_json

VERSION = "0.2.0"


@dataclass(frozen=True)
class DataConfig:
    """Which pictures. `root` may stay empty for the toy birds, which are then rendered into the cache;
    `crop` cuts pictures to their boxes.

    `augment` varies training pictures (mirrored, or also cut), which needs the backbone run live and so takes much
    longer.
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
    """Which frozen backbone, at which input size in pixels (0: its own), how pictures that are not square are fitted,
    and after how many blocks of a transformer its tokens are taken (0: all).
    """

    name: str = "toy"
    weights: str = ""
    image_size: int = 0
    aspect: Literal["squash", "crop"] = "squash"
    depth: int = 0


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
    """One training stage. The last four are the weights of the loss terms beside the cross-entropy; `grounding` is for
    fine-tuning under binary class weights only.
    """

    epochs: int = 25
    lr: float = 1e-3
    weight_decay: float = 7e-4
    batch_size: int = 32
    dropout: float = 0.0
    diversity: float = 0.0
    l1_maps: float = 0.0
    l1_vector: float = 0.0
    grounding: float = 0.0


@dataclass(frozen=True)
class SelectionConfig:
    """How features and class weights are picked: n features in all, k per class.

    `method` is the quadratic programme (`qpm`, with its redundancy rule and when to stop) or one of the two sparse
    linear baselines, in which a class has k features on average. `rounds` is the schedule of Q-SENN:
    `intended` by its paper (a seventh of the epochs in each of three rounds, the rest in the last,
    falling learning rate), or four equal ones as the DINO-QPM release ran it. `locality` is what the programme pays for
    features whose maps keep to one place: the best of them counts as that many percent of the objective (ours; 0 as
    published). `pairs` times the number of classes is how many pairs of similar classes must have k - 1 features in
    common (0.5 in CHiQPM, 0 in QPM).
    """

    method: Literal["qpm", "sldd", "qsenn"] = "qpm"
    n_features: int = 24
    n_per_class: int = 5
    rounds: Literal["intended", "released"] = "intended"
    redundancy: str = "as_coded"
    locality: float = 0.0
    pairs: float = 0.0
    gap: float = 0.005
    time_limit: float = 600.0


@dataclass(frozen=True)
class RankingConfig:
    """Training of the explainer of chapter 10 (learned importance ranking).

    In the first `imitate` of the steps it learns the order of AttnLRP, then the measure.
    `second` is the share of pictures for which the second class is explained, `fractions` how many shares of the
    picture are taken away in a step for each of deletion and insertion, `levels` the groups of ranks, `noise` the
    scale of Gumbel noise, and `reference` what is shown instead: mean, blur, black, or any of the three.
    """

    steps: int = 60
    imitate: int = 0
    batch_size: int = 4
    fractions: int = 2
    levels: int = 32
    iterations: int = 20
    noise: float = 0.3
    second: float = 0.25
    reference: Literal["mean", "blur", "black", "any"] = "mean"
    lr: float = 1e-3
    weight_decay: float = 1e-3
    channels: int = 96


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
    ranking: RankingConfig = field(default_factory=RankingConfig)


# What each stage's result depends on; a stage also depends on everything the stages before it depend on.
STAGES: Mapping[str, tuple[str, ...]] = {
    "features": ("data", "backbone"),
    "dense": ("seed", "adapter", "dense"),
    "selection": ("selection",),
    "model": ("fine_tune",),
    "ranking": ("ranking",),
}


@lru_cache(maxsize=10_000)
def _section_text(_written: str, section: object) -> str:
    """JSON of a section, kept by how it is written (0 is not 0.0): a sweep asks for the same ones again and again."""
    return to_json(section, indent=None)


def stage_key(config: RunConfig, stage: str) -> str:
    """Hash of all settings that the result of a stage depends on."""
    names: list[str] = []
    for name, sections in STAGES.items():
        names += sections
        if name == stage:
            values = {section: getattr(config, section) for section in sorted(names)}
            parts = [f'"{name}": {_section_text(repr(value), value)}' for name, value in values.items()]
            return text_hash("{" + ", ".join(parts) + "}")  # `content_hash` of a dictionary of them
    raise ValueError(f"unknown stage {stage!r}: choose from {', '.join(STAGES)}")
