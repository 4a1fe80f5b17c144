"""Maps of other explanation methods for the picture that the explorer shows, made when they are asked for."""

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image

from qpm_lib.explain import METHODS, Target, make, quick_methods
from qpm_lib.explorer.controls import SIDE
from qpm_lib.model import DinoQPM
from qpm_lib.plotting import PALETTE, Canvas

FEATURES = "features"  # the explanation of the model itself, feature by feature


class OtherMaps:
    """The quick methods of `explain.METHODS` for one model; maps of the picture shown last are kept.

    Attributes
    ----------
    options : titles and names for a menu, the model's own features first.
    """

    def __init__(self, model: DinoQPM) -> None:
        self._target = Target(model, model.backbone)
        names = [name for name in quick_methods(self._target) if name != "intrinsic"]
        self.options = [("features of the class", FEATURES), *((METHODS[name].title, name) for name in names)]
        self._square: Image.Image | None = None
        self._made: dict[tuple[str, int], tuple[Canvas, np.ndarray]] = {}

    def canvas(self, name: str, square: Image.Image, label: int) -> tuple[Canvas, Float[np.ndarray, "g g"]]:
        """The map over the picture, evidence for the class as feature 0 and against it as feature 1; and the map."""
        if square is not self._square:
            self._square, self._made = square, {}
        if (name, label) not in self._made:
            heat = METHODS[name].drawn(make(name, self._target)([square], torch.tensor([label]))[0].numpy())
            sides = {0: heat.clip(0), 1: (-heat).clip(0)}
            self._made[name, label] = Canvas(square, sides, [PALETTE[3], PALETTE[5]], side=SIDE), heat
        return self._made[name, label]
