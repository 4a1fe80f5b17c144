"""Drawing a toy bird in a scene: a seeded renderer with part labels.

Every source of chance has its own stream, keyed by the seed of the scene, and no stream depends on the bird.
The same scene can therefore be drawn again without a part or with another variant of it, and only the pixels of that
part change.
"""

from collections.abc import Collection
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image, ImageDraw

from qpm_lib.data.toy.bird import COLOURS, FACTORS, PARTS, Bird
from qpm_lib.data.toy.shapes import BEAKS, CROWNS, TAILS, bird_shapes, ellipse, polygon

SIZE = 128
_SUPERSAMPLING = 2
_STREAMS = ("background", "pose", "paint", "occluders", "light", "noise")
_LEAF_COLOURS = ((62, 92, 42), (92, 66, 42), (72, 112, 60), (112, 100, 62))
_SKY_COLOURS = ((120, 160, 190), (90, 130, 72), (150, 170, 140), (112, 96, 80))
CLUTTER = "clutter"


class Render(NamedTuple):
    """One picture: `image` (128, 128, 3) in RGB and `parts` (128, 128) with indices into `PARTS` (0 is background)."""

    image: UInt8[np.ndarray, "128 128 3"]
    parts: UInt8[np.ndarray, "128 128"]


def _rotation(
    degrees: float, centre: tuple[float, float] = (0.0, 0.0)
) -> tuple[Float[np.ndarray, "2 2"], Float[np.ndarray, "2"]]:
    t = np.deg2rad(degrees)
    matrix = np.array([[np.cos(t), -np.sin(t)], [np.sin(t), np.cos(t)]])
    return matrix, np.asarray(centre) - matrix @ np.asarray(centre)


def _rgb(colour: Float[np.ndarray, "3"]) -> tuple[int, int, int]:
    r, g, b = np.clip(np.rint(colour), 0, 255).astype(int).tolist()
    return r, g, b


def _pixels(points: Float[np.ndarray, "points 2"], scale: float = 1.0) -> list[float]:
    """Points in pixels, rounded to 1/64 so that the last bit of a sine cannot move an edge."""
    return (np.round(points * scale * 64) / 64).ravel().tolist()


def _jittered(colour: str, rng: np.random.Generator) -> Float[np.ndarray, "3"]:
    return np.asarray(COLOURS[colour], float) * (1 + 0.08 * rng.normal()) + rng.normal(0, 6, 3)


def _background(rng: np.random.Generator, *, cluttered: bool = True) -> Image.Image:
    """Ground: colour noise, stripes, and, unless it shall not be cluttered, shapes of real parts in real colours where
    no bird is.
    """
    width = SIZE * _SUPERSAMPLING
    names = list(COLOURS)
    cells = int(rng.choice([3, 5, 9]))
    first, second = (np.asarray(COLOURS[names[rng.integers(len(names))]], float) for _ in range(2))
    sky = np.asarray(_SKY_COLOURS[rng.integers(4)], float)
    mix = rng.random((cells, cells, 2))
    ground = mix[..., :1] * first + (1 - mix[..., :1]) * second
    ground = 0.55 * ground * mix[..., 1:] + (1 - 0.55 * mix[..., 1:]) * sky
    image = Image.fromarray(np.clip(ground, 0, 255).astype(np.uint8)).resize((width, width), Image.Resampling.BICUBIC)
    draw = ImageDraw.Draw(image)
    if rng.random() < 0.4:
        colour, angle = _jittered(names[rng.integers(len(names))], rng) * rng.uniform(0.5, 1.1), rng.uniform(0, np.pi)
        along, across = (
            np.array([np.cos(angle), np.sin(angle)]) * width,
            np.array([-np.sin(angle), np.cos(angle)]) * width,
        )
        for _ in range(int(rng.integers(3, 9))):
            middle = width / 2 + across * rng.uniform(-0.6, 0.6)
            draw.line(
                _pixels(np.stack([middle - along, middle + along])),
                fill=_rgb(colour),
                width=int(rng.uniform(1, 5) * _SUPERSAMPLING),
            )
    for _ in range(int(rng.integers(5, 13)) if cluttered else 0):
        _distractor(draw, rng, names)
    return image


def _distractor(draw: ImageDraw.ImageDraw, rng: np.random.Generator, names: list[str]) -> None:
    kind, scale = rng.integers(5), rng.uniform(10, 24) * _SUPERSAMPLING
    colour = _rgb(_jittered(names[rng.integers(len(names))], rng))
    turn, _ = _rotation(rng.uniform(0, 360))
    place = rng.uniform(0, SIZE * _SUPERSAMPLING, 2)
    if kind == 0:
        shapes = [ellipse(0, 0, *rng.uniform(0.2, 0.8, 2))]
    elif kind == 1:
        shapes = [polygon((-0.5, 0), (0.5, rng.uniform(-0.4, 0.4)), (-0.3, 0.5))]
    else:
        variants = (TAILS, CROWNS, BEAKS)[kind - 2]
        shapes = list(variants.values())[rng.integers(len(variants))]
        centre = np.concatenate(shapes).mean(0) if shapes else 0
        shapes = [s - centre for s in shapes]
    for shape in shapes:
        draw.polygon(_pixels(shape @ turn.T * scale + place), fill=colour)


class _Pose(NamedTuple):
    matrix: Float[np.ndarray, "2 2"]
    centre: Float[np.ndarray, "2"]
    joints: dict[str, tuple[Float[np.ndarray, "2 2"], Float[np.ndarray, "2"]]]
    sway: Float[np.ndarray, "2"]


def _pose(rng: np.random.Generator) -> _Pose:
    scale, squeeze = rng.uniform(25, 30), rng.uniform(0.86, 1.0)
    mirror = -1 if rng.random() < 0.5 else 1
    matrix = _rotation(rng.normal(0, 9))[0] @ np.diag([squeeze * mirror, 1.0]) * scale
    slack = np.maximum(2, SIZE / 2 - scale * np.array([2.05, 1.5]))
    centre = SIZE / 2 - matrix @ np.array([0.0, -0.15]) + rng.uniform(-1, 1, 2) * slack
    joints = {
        "body": _rotation(0),
        "head": _rotation(rng.normal(0, 9), (0.72, -0.4)),
        "tail": _rotation(rng.normal(0, 11), (-0.8, 0.0)),
        "legs": _rotation(rng.normal(0, 6), (0.1, 0.4)),
    }
    return _Pose(matrix, centre, joints, rng.uniform(-0.15, 0.15, 2))


def _occlude(draws: tuple[ImageDraw.ImageDraw, ImageDraw.ImageDraw], pose: _Pose, rng: np.random.Generator) -> None:
    """Sometimes one leaf or twig over the bird; what it covers is background in the part map."""
    if rng.random() < 0.5:
        return
    place = pose.centre + pose.matrix @ rng.uniform([-1.8, -1.3], [1.8, 1.1])
    colour = _rgb(np.asarray(_LEAF_COLOURS[rng.integers(4)], float) * rng.uniform(0.7, 1.3))
    angle, thickness, half = rng.uniform(0, np.pi), rng.uniform(1.5, 3.5), rng.uniform([6, 3], [11, 5])
    along = np.array([np.cos(angle), np.sin(angle)])
    across = np.array([-along[1], along[0]]) * thickness / 2
    twig = np.stack(
        [
            place - along * 180 + across,
            place + along * 180 + across,
            place + along * 180 - across,
            place - along * 180 - across,
        ]
    )
    outline = twig if rng.random() < 0.5 else ellipse(*place, *half, angle)
    for draw, scale, fill in zip(draws, (_SUPERSAMPLING, 1), (colour, 0), strict=True):
        draw.polygon(_pixels(outline, scale), fill=fill)


def _light(
    image: Float[np.ndarray, "h w 3"], parts: UInt8[np.ndarray, "h w"], pose: _Pose, streams: dict
) -> Float[np.ndarray, "h w 3"]:
    """Shading, white balance, brightness, contrast and sensor noise."""
    rng = streams["light"]
    y, x = np.mgrid[0:SIZE, 0:SIZE].astype(np.float64)
    angle = rng.uniform(0, 2 * np.pi)
    slope = ((x - 64) * np.cos(angle) + (y - 64) * np.sin(angle)) / 64 * rng.uniform(0, 0.18)
    inverse = np.linalg.inv(pose.matrix)
    height = (x - pose.centre[0]) * inverse[1, 0] + (y - pose.centre[1]) * inverse[1, 1]
    round_body = np.where(parts > 0, -0.2 * np.clip(height, -1, 1), 0)
    cells = Image.fromarray(rng.integers(0, 255, (24, 24), dtype=np.uint8)).resize(
        (SIZE, SIZE), Image.Resampling.BILINEAR
    )
    texture = 0.12 * (np.asarray(cells, np.float64) / 255 - 0.5)
    balance = (1 + 0.10 * np.clip(rng.normal(0, 1, 3), -2, 2)) * rng.uniform(0.72, 1.2)
    image = image * (1 + slope + round_body + texture)[..., None] * balance
    image = (image - 0.42) * rng.uniform(0.78, 1.18) + 0.42
    return image + streams["noise"].normal(0, 0.02, (SIZE, SIZE, 1))


def render(bird: Bird, seed: int, *, without: Collection[str] = ()) -> Render:
    """Draw a bird in the scene of a seed.

    Parameters
    ----------
    bird : the part variants; another variant is `bird._replace(beak="hook")`.
    seed : the scene (background, pose, light, noise, occluder). Equal seeds give equal scenes for any bird.
    without : parts to leave out, by their names in `PARTS`, or `clutter`, the shapes strewn over the background.

    Raises
    ------
    ValueError : for an unknown part or variant.
    """
    unknown = set(without) - {*PARTS[1:], CLUTTER}
    if unknown:
        raise ValueError(f"unknown parts {sorted(unknown)}: choose from {', '.join((*PARTS[1:], CLUTTER))}")
    for factor, value in bird._asdict().items():
        if value not in FACTORS[factor]:
            raise ValueError(f"{factor} (={value!r}) is unknown: choose from {', '.join(FACTORS[factor])}")
    streams = {name: np.random.default_rng([seed, k]) for k, name in enumerate(_STREAMS)}
    canvas, labels = (
        _background(streams["background"], cluttered=CLUTTER not in without),
        Image.new("L", (SIZE, SIZE), 0),
    )
    draw, draw_labels = ImageDraw.Draw(canvas), ImageDraw.Draw(labels)
    pose = _pose(streams["pose"])
    paint_seed = int(streams["paint"].integers(2**31))
    for shape in bird_shapes(bird, pose.sway):
        if shape.part in without:
            continue
        part = PARTS.index(shape.part)
        colour = (
            _jittered(
                shape.colour, np.random.default_rng([paint_seed, list(COLOURS).index(shape.colour), part in (3, 5, 6)])
            )
            * shape.brightness
        )
        turn, shift = pose.joints[shape.joint]
        points = (shape.points @ turn.T + shift) @ pose.matrix.T + pose.centre
        draw.polygon(_pixels(points, _SUPERSAMPLING), fill=_rgb(colour))
        draw_labels.polygon(_pixels(points), fill=part)
    _occlude((draw, draw_labels), pose, streams["occluders"])
    parts = np.array(labels)
    image = _light(np.asarray(canvas.reduce(_SUPERSAMPLING), np.float64) / 255, parts, pose, streams)
    return Render((np.clip(image, 0, 1) * 255).astype(np.uint8), parts)
