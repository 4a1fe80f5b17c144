"""The answer about one picture as a figure."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from qpm_lib.core import write_atomically
from qpm_lib.model.predict import Result
from qpm_lib.model.qpm import DinoQPM
from qpm_lib.plotting import combined_overlay, contribution_bars, feature_colours, new_figure, overlay, show_images

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_SIDE, _LONGEST = 256, 80  # pixels of a panel, letters of a file name


def heat_map_figure(result: Result, model: DinoQPM) -> "Figure":
    """The picture, all features of its class together, each by itself, and what each adds to the score."""
    answer, colours = result.answer, feature_colours(model.class_weight.cpu().numpy())
    image = np.asarray(model.backbone.square(result.image, _SIDE)) / 255
    weight = model.class_weight[int(result.explanation.target[0])].cpu()
    used = [q for q, f in enumerate(result.explanation.features[0].tolist()) if weight[f] != 0]
    features = result.explanation.features[0, used].numpy()
    heat, ink = np.abs(result.explanation.maps[0, used].numpy()), [colours[f] for f in features]
    together = [combined_overlay(image, heat, ink)] if used else []
    panels = [image, *together, *(overlay(image, h, s) for h, s in zip(heat, ink, strict=True))]
    titles = ["picture", *(["all features"] if used else []), *(model.feature_names[f] for f in features)]
    figure = new_figure((1.75 * len(panels) + 3, 2.5))
    left, right = figure.subplots(1, 2, width_ratios=(1.75 * len(panels), 2.6))
    show_images(
        left, panels, columns=len(panels), titles=titles, caption=f"{answer.class_name}; runner-up {answer.runner_up}"
    )
    terms = result.explanation.contributions[0, used].numpy()
    contribution_bars(right, terms, features, colours, constant=answer.constant)
    return figure


def save_heat_map(result: Result, model: DinoQPM, path: Path) -> None:
    """Write `heat_map_figure` as PNG."""
    figure = heat_map_figure(result, model)
    path = path.with_name(path.stem[:_LONGEST] + path.suffix)
    write_atomically(path, lambda temporary: figure.savefig(temporary, dpi=100, bbox_inches="tight", format="png"))
