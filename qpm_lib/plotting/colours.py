"""One fixed colour per feature.

Colours come from a palette that colour-blind people can tell apart (Okabe and Ito, extended with three of Tol's), and
features used together by a class get different ones; numbers are always written beside them. How a map is laid over a
picture is written in `maps.py` (figures, card), in `canvas.py` (widget, strips of the report) and in the script of
the static explorer (`report/templates/explorer.js`).
"""

import numpy as np
from jaxtyping import Bool, Float
from PIL import ImageColor

PALETTE = ("#E69F00", "#56B4E9", "#009E73", "#D55E00", "#CC79A7", "#0072B2", "#F0E442", "#882255", "#44AA99", "#332288")


def feature_colours(weight: Bool[np.ndarray, "classes n"] | Float[np.ndarray, "classes n"]) -> list[str]:
    """One colour per feature; features of the same class share one only where the palette does not suffice.

    The next feature is always the one that has most colours around it already (DSATUR: Brelaz, 1979).
    """
    used = np.asarray(weight) != 0
    together = (used.T.astype(int) @ used) > 0
    colours: dict[int, int] = {}
    while len(colours) < used.shape[1]:
        open_ = [f for f in range(used.shape[1]) if f not in colours]
        around = {f: [c for g, c in colours.items() if together[f, g]] for f in open_}
        f = max(open_, key=lambda f: (len(set(around[f])), together[f].sum()))
        every = list(colours.values())
        colours[f] = min(range(len(PALETTE)), key=lambda c: (around[f].count(c), every.count(c), c))
    return [PALETTE[colours[f]] for f in range(used.shape[1])]


def cluster_colours(count: int) -> list[str]:
    """Colours of clusters: those of features, then their lighter tints."""
    tints = [PALETTE[i % len(PALETTE)] for i in range(count)]
    paler = (0.0, 0.55, 0.8)
    white = [paler[min(i // len(PALETTE), len(paler) - 1)] for i in range(count)]
    mixed = [np.round(255 * (rgb(c) * (1 - w) + w)).astype(int) for c, w in zip(tints, white, strict=True)]
    return ["#{:02x}{:02x}{:02x}".format(*colour) for colour in mixed]


def rgb(colour: str) -> Float[np.ndarray, "3"]:
    """A colour, as `#RRGGBB` or by its name in CSS, in 0 to 1."""
    return np.array(ImageColor.getrgb(colour)[:3]) / 255
