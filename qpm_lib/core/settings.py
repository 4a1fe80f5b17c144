"""Settings by dotted keys: read from text, checked before anything starts, written to JSON and read again."""

import difflib
import operator
import re
from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace
from functools import cache
from typing import Any, Literal, get_args, get_origin, get_type_hints

from qpm_lib.core.config import RunConfig


@cache
def setting_names() -> tuple[str, ...]:
    """All settings as dotted keys, such as `dense.epochs`."""
    keys = []
    for top in fields(RunConfig):
        section = getattr(RunConfig(), top.name)
        keys += [f"{top.name}.{f.name}" for f in fields(section)] if is_dataclass(section) else [top.name]
    return tuple(key for key in keys if key != "profile")


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
    except (KeyError, ValueError, TypeError, OverflowError):
        wanted = {bool: "true or false", int: "a whole number", float: "a number"}[kind]
        raise ValueError(f"{key} (={value!r}) must be {wanted}") from None


def whole_number(name: str, value: object) -> int:
    """The value as an int; a ValueError that names it when it is none."""
    try:
        return operator.index(value)
    except TypeError as error:
        raise ValueError(f"{name} (={value!r}) must be a whole number") from error


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
        raise ValueError(
            f"selection.redundancy (={rule!r}) must be as_coded, as_written, none, "
            "or a share of pairs above 0 and at most 1"
        )
    return share


_ABOVE_ZERO = (
    "data.n_species",
    "data.train_per_class",
    "data.test_per_class",
    "features.batch_size",
    "features.shard_size",
    "adapter.n_layers",
    "adapter.hidden",
    "adapter.n_features",
    "selection.n_features",
    "selection.n_per_class",
    "selection.time_limit",
    "ranking.steps",
    "ranking.batch_size",
    "ranking.fractions",
    "ranking.levels",
    "ranking.iterations",
    "ranking.lr",
    "ranking.channels",
    "dense.epochs",
    "dense.batch_size",
    "dense.lr",
    "fine_tune.epochs",
    "fine_tune.batch_size",
    "fine_tune.lr",
)


_SHARES = ("dense.dropout", "fine_tune.dropout", "data.test_share")


def _check(config: RunConfig) -> None:
    """Refuse values that cannot work, before anything is computed."""
    for key in setting_names():
        head, _, tail = key.partition(".")
        value = getattr(getattr(config, head), tail) if tail else getattr(config, head)
        if isinstance(value, str | bool):
            continue
        if not 0 <= value < float("inf") or (key in _ABOVE_ZERO and value == 0):
            raise ValueError(
                f"{key} (={value}) must be a finite number {'above 0' if key in _ABOVE_ZERO else 'of at least 0'}"
            )
        if key in ("seed", "data.seed") and value >= 2**32:
            raise ValueError(f"{key} (={value}) must be below 2**32, the limit of the generators")
        if key in _SHARES and value >= 1:
            raise ValueError(f"{key} (={value}) must be below 1")
    if config.selection.method == "qsenn" and config.fine_tune.epochs < 4:
        raise ValueError(
            f"fine_tune.epochs (={config.fine_tune.epochs}) must be at least 4: Q-SENN trains in four rounds"
        )
    if config.dense.grounding or (config.fine_tune.grounding and config.selection.method != "qpm"):
        raise ValueError("grounding needs binary class weights: set fine_tune.grounding, with selection.method=qpm")
    n, k, total = config.selection.n_features, config.selection.n_per_class, config.adapter.n_features
    if n > total:
        raise ValueError(
            f"selection.n_features (={n}) exceeds adapter.n_features (={total}): lower the first or raise the second"
        )
    if k > n:
        raise ValueError(
            f"selection.n_per_class (={k}) exceeds selection.n_features (={n}): lower the first or raise the second"
        )
    read_redundancy_rule(config.selection.redundancy)
    if not re.fullmatch(r"auto|(cpu|cuda|mps|xpu)(:\d+)?", config.device):
        raise ValueError(f"device (={config.device!r}) must be auto, cpu, cuda, cuda:<number>, mps or xpu")


def with_settings(config: RunConfig, settings: Mapping[str, Any]) -> RunConfig:
    """A copy with some settings changed.

    Parameters
    ----------
    settings : dotted keys and their values, for example `{"dense.epochs": 3}`; strings are converted to the setting's
        type.

    Raises
    ------
    ValueError : for an unknown key (the nearest known ones are named), a value of the wrong type,
        or values that contradict each other.
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
