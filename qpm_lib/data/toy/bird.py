"""A toy bird: eleven factors, and the part that each of them shows on."""

from collections.abc import Mapping
from typing import NamedTuple

PARTS = ("background", "tail", "legs", "body", "breast", "wing", "head", "crown", "eye", "beak")
FACTORS: Mapping[str, tuple[str, ...]] = {
    "base_colour": ("brown", "slate", "olive", "rust"),
    "breast_colour": ("white", "yellow", "rufous", "grey"),
    "breast_pattern": ("plain", "streaks", "spots", "bands"),
    "wing": ("plain", "one_bar", "two_bars", "patch"),
    "tail": ("fork", "fan", "long", "short"),
    "crown": ("none", "peak", "round", "cap", "tuft"),
    "crown_colour": ("red", "black", "yellow", "blue"),
    "eye": ("plain", "ring", "mask", "red"),
    "beak": ("cone", "long", "hook", "broad"),
    "beak_colour": ("yellow", "black", "red", "grey"),
    "legs": ("orange", "black", "pink"),
}


FACTOR_PART: Mapping[str, str] = {
    "base_colour": "body",
    "breast_colour": "breast",
    "breast_pattern": "breast",
    "wing": "wing",
    "tail": "tail",
    "crown": "crown",
    "crown_colour": "crown",
    "eye": "eye",
    "beak": "beak",
    "beak_colour": "beak",
    "legs": "legs",
}


COLOURS: Mapping[str, tuple[int, int, int]] = {
    "brown": (124, 86, 54),
    "slate": (90, 106, 130),
    "olive": (114, 120, 62),
    "rust": (170, 86, 50),
    "white": (234, 230, 216),
    "yellow": (232, 196, 62),
    "rufous": (198, 106, 56),
    "grey": (150, 150, 152),
    "black": (38, 36, 40),
    "red": (198, 48, 44),
    "orange": (236, 138, 44),
    "pink": (214, 140, 142),
    "blue": (62, 108, 190),
    "cream": (228, 208, 162),
}


class Bird(NamedTuple):
    """One bird as a combination of part variants; the fields and their values are the keys and values of `FACTORS`."""

    base_colour: str
    breast_colour: str
    breast_pattern: str
    wing: str
    tail: str
    crown: str
    crown_colour: str
    eye: str
    beak: str
    beak_colour: str
    legs: str
