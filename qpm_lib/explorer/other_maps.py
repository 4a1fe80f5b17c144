"""What else the explorer can lay over its picture, made when asked for: maps of other explanation methods, and the
clusters of the encoder.
"""

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from PIL import Image

from qpm_lib.data import ImageDataset
from qpm_lib.explain import METHODS, NAVE, SharedClusters, Target, make, quick_methods
from qpm_lib.explorer.controls import SIDE
from qpm_lib.model import DinoQPM
from qpm_lib.plotting import PALETTE, Canvas, cluster_colours, label_overlay

FEATURES = "features"  # the explanation of the model itself, feature by feature
CLUSTERS = "clusters"  # what the encoder groups together, without any class
_FITTED_ON = 64


class OtherMaps:
    """The quick methods of `explain.METHODS` for one model, and NAVE; maps of the picture shown last are kept.

    Attributes
    ----------
    options : titles and names for a menu, the model's own features first.
    """

    def __init__(self, model: DinoQPM, dataset: ImageDataset) -> None:
        self._target, self._dataset = Target(model, model.backbone), dataset
        names = [name for name in quick_methods(self._target) if name != "intrinsic"]
        self.options = [("features of the class", FEATURES), *((METHODS[name].title, name) for name in names)]
        self.options.append(("clusters of the encoder", CLUSTERS))
        self._square: Image.Image | None = None
        self._made: dict[tuple[str, int], tuple[Canvas, np.ndarray]] = {}
        self._clusters: SharedClusters | None = None
        self._leaves: Int[np.ndarray, "g g"] | None = None

    def canvas(self, name: str, square: Image.Image, label: int) -> tuple[Canvas, Float[np.ndarray, "g g"]]:
        """The map over the picture, evidence for the class as feature 0 and against it as feature 1; and the map."""
        self._keep(square)
        if (name, label) not in self._made:
            heat = METHODS[name].drawn(make(name, self._target)([square], torch.tensor([label]))[0].numpy())
            sides = {0: heat.clip(0), 1: (-heat).clip(0)}
            self._made[name, label] = Canvas(square, sides, [PALETTE[3], PALETTE[5]], side=SIDE), heat
        return self._made[name, label]

    def segmented(
        self, square: Image.Image, k: int, opacity: float
    ) -> tuple[UInt8[np.ndarray, "side side 3"], Int[np.ndarray, "g g"]]:
        """The picture under k clusters, which were fitted once on some training pictures; and its labels."""
        self._keep(square)
        if self._clusters is None:
            rows = self._dataset.train_rows
            some = rows[np.linspace(0, len(rows) - 1, min(_FITTED_ON, len(rows))).astype(int)]
            self._clusters = NAVE(self._target.backbone).fit([self._dataset.image(int(row)) for row in some])
        finest = len(self._clusters.clusters.sizes)
        if self._leaves is None:
            self._leaves = self._clusters.transform([square], finest)[0].numpy()
        of = self._clusters.clusters.cut(k)
        own = cluster_colours(finest)
        colours = [own[int(np.flatnonzero(of == cluster)[0])] for cluster in range(k)]
        plain = np.asarray(square.resize((SIDE, SIDE), Image.Resampling.BILINEAR))
        drawn = 255 * label_overlay(plain, of[self._leaves], colours)
        return np.round((1 - opacity) * plain + opacity * drawn).astype(np.uint8), of[self._leaves]

    def _keep(self, square: Image.Image) -> None:
        if square is not self._square:
            self._square, self._made, self._leaves = square, {}, None
