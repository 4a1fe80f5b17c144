"""Outlines of the toy birds: what each part looks like in each of its variants.

A bird lives in its own frame: origin in the body, x towards the beak, y downwards, one unit is roughly half a body
length. `bird_shapes` turns a `Bird` (eleven factors) into an ordered list of filled outlines;
nothing here knows about pixels.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from qpm_lib.data.toy.bird import Bird


class Shape(NamedTuple):
    """A filled outline: points in the bird's frame, colour name, brightness factor, part, and the joint it hangs on."""

    points: Float[np.ndarray, "points 2"]
    colour: str
    brightness: float
    part: str
    joint: str


def closed_curve(points: list[tuple[float, float]], steps: int = 5) -> Float[np.ndarray, "points 2"]:
    """Closed Catmull-Rom spline through the points, `steps` samples per segment."""
    p1 = np.asarray(points, float)
    p0, p2, p3 = np.roll(p1, 1, 0), np.roll(p1, -1, 0), np.roll(p1, -2, 0)
    t = np.linspace(0, 1, steps, endpoint=False)[:, None, None]
    curve = 0.5 * (2 * p1 + (p2 - p0) * t + (2 * p0 - 5 * p1 + 4 * p2 - p3) * t**2 + (3 * p1 - p0 - 3 * p2 + p3) * t**3)
    return curve.transpose(1, 0, 2).reshape(-1, 2)


def ellipse(
    x: float, y: float, a: float, b: float, angle: float = 0.0, steps: int = 18
) -> Float[np.ndarray, "points 2"]:
    """Ellipse with half axes `a`, `b` around (x, y), turned by `angle` radians."""
    t = np.linspace(0, 2 * np.pi, steps, endpoint=False)
    u, v = a * np.cos(t), b * np.sin(t)
    c, s = np.cos(angle), np.sin(angle)
    return np.stack([x + c * u - s * v, y + s * u + c * v], axis=1)


def polygon(*points: tuple[float, float]) -> Float[np.ndarray, "points 2"]:
    """Straight-edged outline."""
    return np.asarray(points, float)


BODY = closed_curve(
    [
        (-0.98, -0.12),
        (-0.55, -0.5),
        (0.1, -0.64),
        (0.68, -0.6),
        (1.0, -0.2),
        (0.92, 0.24),
        (0.42, 0.6),
        (-0.2, 0.57),
        (-0.75, 0.24),
    ]
)


BREAST = closed_curve(
    [(1.0, -0.26), (0.94, 0.24), (0.46, 0.6), (-0.16, 0.57), (0.08, 0.28), (0.46, 0.02), (0.72, -0.34)]
)


WING = closed_curve(
    [(0.4, -0.36), (0.26, 0.08), (-0.22, 0.3), (-0.78, 0.17), (-1.28, 0.02), (-0.78, -0.3), (-0.2, -0.5)]
)


HEAD = ellipse(0.94, -0.72, 0.48, 0.45)
EYE_X, EYE_Y = 1.08, -0.78
TAILS = {
    "fork": [polygon((-0.75, -0.25), (-1.95, -0.66), (-1.42, -0.06), (-1.98, 0.4), (-0.75, 0.2))],
    "fan": [
        closed_curve(
            [(-0.7, -0.2), (-1.4, -0.66), (-1.78, -0.46), (-1.92, 0.0), (-1.78, 0.42), (-1.4, 0.6), (-0.7, 0.2)]
        )
    ],
    "long": [closed_curve([(-0.75, -0.16), (-1.5, -0.16), (-2.12, -0.09), (-2.16, 0.08), (-1.5, 0.14), (-0.75, 0.18)])],
    "short": [polygon((-0.78, -0.26), (-1.34, -0.22), (-1.34, 0.22), (-0.78, 0.2))],
}


CROWNS = {
    "none": [],
    "peak": [polygon((1.2, -1.06), (0.85, -1.2), (0.12, -1.52), (0.46, -0.98), (0.56, -0.72))],
    "round": [closed_curve([(1.28, -1.0), (1.22, -1.4), (0.86, -1.58), (0.48, -1.4), (0.5, -0.98), (0.88, -1.06)])],
    "cap": [
        closed_curve(
            [(1.38, -0.92), (1.2, -1.14), (0.94, -1.22), (0.66, -1.12), (0.44, -0.78), (0.72, -0.94), (1.08, -0.98)]
        )
    ],
    "tuft": [
        polygon((1.06, -1.08), (1.22, -1.66), (0.9, -1.12)),
        polygon((0.94, -1.1), (0.84, -1.72), (0.73, -1.1)),
        polygon((0.8, -1.06), (0.46, -1.6), (0.58, -1.0)),
    ],
}


BEAKS = {
    "cone": [polygon((1.33, -0.98), (1.86, -0.68), (1.33, -0.46))],
    "long": [polygon((1.35, -0.84), (2.18, -0.62), (2.18, -0.55), (1.35, -0.56))],
    "hook": [closed_curve([(1.3, -0.98), (1.66, -0.96), (1.9, -0.7), (1.84, -0.32), (1.68, -0.54), (1.33, -0.5)])],
    "broad": [closed_curve([(1.32, -0.84), (1.66, -0.74), (2.0, -0.84), (2.1, -0.56), (1.76, -0.46), (1.33, -0.5)])],
}


STREAKS = ((0.88, -0.08), (0.7, 0.1), (0.48, 0.27), (0.26, 0.42), (0.8, 0.32), (0.56, 0.48))
SPOTS = ((0.86, -0.12), (0.68, 0.08), (0.86, 0.16), (0.46, 0.22), (0.66, 0.36), (0.25, 0.42), (0.44, 0.48))
BANDS = (
    [(0.62, -0.2), (0.76, -0.3), (1.02, 0.05), (0.96, 0.23), (0.8, 0.06)],
    [(0.38, 0.06), (0.52, -0.03), (0.82, 0.32), (0.74, 0.44), (0.56, 0.26)],
)


BARS = {"one_bar": (0.12,), "two_bars": (0.22, -0.24)}


def _breast(bird: Bird) -> list[Shape]:
    marks = {
        "plain": [],
        "streaks": [
            polygon((x - 0.05, y - 0.17), (x + 0.05, y - 0.17), (x + 0.03, y + 0.16), (x - 0.07, y + 0.16))
            for x, y in STREAKS
        ],
        "spots": [ellipse(x, y, 0.085, 0.085, steps=9) for x, y in SPOTS],
        "bands": [closed_curve(list(band)) for band in BANDS],
    }[bird.breast_pattern]
    return [Shape(BREAST, bird.breast_colour, 1.0, "breast", "body")] + [
        Shape(m, bird.breast_colour, 0.36, "breast", "body") for m in marks
    ]


def _wing(bird: Bird) -> list[Shape]:
    shapes = [Shape(WING, bird.base_colour, 0.68, "wing", "body")]
    if bird.wing == "patch":
        shapes.append(Shape(ellipse(-0.14, -0.1, 0.33, 0.21, 0.2), "cream", 1.0, "wing", "body"))
    for x in BARS.get(bird.wing, ()):
        bar = polygon((x, -0.44), (x + 0.13, -0.43), (x - 0.09, 0.22), (x - 0.24, 0.26))
        shapes.append(Shape(bar, "cream", 1.0, "wing", "body"))
    return shapes


def _eye(bird: Bird) -> list[Shape]:
    shapes = []
    if bird.eye == "ring":
        shapes.append(Shape(ellipse(EYE_X, EYE_Y, 0.24, 0.24), "white", 1.0, "eye", "head"))
    if bird.eye == "mask":
        shapes.append(
            Shape(
                closed_curve([(1.4, -0.82), (1.1, -1.0), (0.62, -0.84), (0.54, -0.62), (1.1, -0.56)]),
                "black",
                1.0,
                "eye",
                "head",
            )
        )
    shapes.append(
        Shape(
            ellipse(EYE_X, EYE_Y, 0.15, 0.15, steps=14),
            "red" if bird.eye == "red" else "black",
            1.0 if bird.eye == "red" else 0.6,
            "eye",
            "head",
        )
    )
    if bird.eye == "red":
        shapes.append(Shape(ellipse(EYE_X, EYE_Y, 0.06, 0.06, steps=8), "black", 0.5, "eye", "head"))
    else:
        shapes.append(Shape(ellipse(EYE_X + 0.05, EYE_Y - 0.05, 0.05, 0.05, steps=8), "white", 1.0, "eye", "head"))
    return shapes


def _legs(bird: Bird, sway: Float[np.ndarray, "2"]) -> list[Shape]:
    shapes = []
    for x, d in zip((-0.06, 0.34), sway, strict=True):
        leg = polygon(
            (x - 0.08, 0.44),
            (x + 0.08, 0.44),
            (x + d + 0.08, 1.1),
            (x + d + 0.36, 1.2),
            (x + d + 0.36, 1.3),
            (x + d - 0.14, 1.3),
            (x + d - 0.08, 1.18),
        )
        shapes.append(Shape(leg, bird.legs, 1.0, "legs", "legs"))
    return shapes


def bird_shapes(bird: Bird, sway: Float[np.ndarray, "2"]) -> list[Shape]:
    """Outlines of a bird in painting order.

    Parameters
    ----------
    bird : the combination of variants.
    sway : horizontal offset of the two feet, in bird units.
    """
    crown = [Shape(p, bird.crown_colour, 1.0, "crown", "head") for p in CROWNS[bird.crown]]
    head = Shape(HEAD, bird.base_colour, 1.08, "head", "head")
    shapes = [Shape(p, bird.base_colour, 0.8, "tail", "tail") for p in TAILS[bird.tail]]
    shapes += _legs(bird, sway)
    shapes += [Shape(BODY, bird.base_colour, 1.0, "body", "body"), *_breast(bird), *_wing(bird)]
    shapes += [head, *crown] if bird.crown == "cap" else [*crown, head]
    shapes += [Shape(p, bird.beak_colour, 1.0, "beak", "head") for p in BEAKS[bird.beak]]
    return shapes + _eye(bird)
