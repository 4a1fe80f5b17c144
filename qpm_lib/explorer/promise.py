"""How sure: the classes that are still possible at a confidence, and the tree of classes pruned to them."""

from collections.abc import Sequence
from typing import Any

import ipywidgets as widgets
import numpy as np
import torch
from jaxtyping import Float

from qpm_lib.conformal import HierarchicalSets
from qpm_lib.explorer.controls import Picture
from qpm_lib.explorer.words import said
from qpm_lib.model import supported_confidences
from qpm_lib.plotting import class_tree, to_jpeg


class Promise(widgets.VBox):
    """The set of a picture, its path, and its tree, at a confidence that a slider sets.

    Parameters
    ----------
    sets : what the model promises. class_names, feature_names, colours : as everywhere in the explorer.

    Attributes
    ----------
    confidence : the slider, over the confidences that the calibration pictures support. possible : the set and the path
        in words. tree : the classes that still share the path at the calibrated level, those of the set in bold.
    """

    def __init__(
        self,
        sets: HierarchicalSets,
        class_names: Sequence[str],
        feature_names: Sequence[str],
        colours: Sequence[str],
    ) -> None:
        self._sets, self._classes, self._features, self._colours = sets, class_names, feature_names, colours
        supported = supported_confidences(sets)
        if not supported:
            raise ValueError(
                f"{sets.rule().count} calibration pictures support no confidence that the slider has: calibrate with "
                "more pictures"
            )
        default = 0.9 if 0.9 in supported else supported[-1]
        self.confidence = widgets.SelectionSlider(options=supported, value=default, description="confidence")
        self.possible, self.tree = widgets.HTML(), Picture()
        self._seen: tuple[torch.Tensor, torch.Tensor] | None = None
        self.confidence.observe(self._show, names="value")
        super().__init__([self.confidence, self.possible, self.tree])

    def show(self, values: Float[np.ndarray, "n"], logits: Float[np.ndarray, "classes"]) -> None:
        """Another picture: strengths of its features, and its scores."""
        self._seen = torch.from_numpy(values), torch.from_numpy(logits)
        self._show()

    def _show(self, *_: Any) -> None:
        if self._seen is None:
            return
        alpha, (values, logits) = 1 - float(self.confidence.value), self._seen
        rule, tree = self._sets.rule(alpha), self._sets.tree(values[None], logits[None])
        members = self._sets.members(values, logits, alpha)
        steps = [
            (self._features[f], int(tree.left(level)[0].sum()), level == rule.level)
            for level, f in enumerate(tree.path[0].tolist(), 1)
            if f >= 0
        ]
        names = [self._classes[c] for c in members]
        self.possible.value = said("possible", float(self.confidence.value), names, steps, rule.level, rule.share)
        kept = sorted(set(tree.left(rule.level)[0].nonzero()[:, 0].tolist()) | set(members))
        self.tree.value = self._drawn(tree.features[0].numpy(), int(tree.predicted[0]), kept, members, rule.level)
        self.tree.text = f"Tree of {len(kept)} classes by their features, strongest first; said: {', '.join(names)}"

    def _drawn(
        self, features: np.ndarray, predicted: int, kept: Sequence[int], members: Sequence[int], level: int
    ) -> bytes:
        """The tree of some classes as a picture."""
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        figure = Figure(figsize=(max(4.0, min(11.0, 0.45 * len(kept) + 1)), 5), layout="constrained")
        canvas, position = FigureCanvasAgg(figure), {c: q for q, c in enumerate(kept)}
        options = {"predicted": position[predicted], "members": [position[c] for c in members], "level": level}
        class_tree(figure.subplots(), features[kept], [self._classes[c] for c in kept], self._colours, **options)
        canvas.draw()
        return to_jpeg(np.asarray(canvas.buffer_rgba())[..., :3])
