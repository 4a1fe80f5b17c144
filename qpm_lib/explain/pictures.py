"""Maps of several methods for picture files, with what can be said of them in numbers, and as a figure."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image

from qpm_lib.data import UnreadableError, read_image
from qpm_lib.explain.base import ExplanationMethod
from qpm_lib.explain.registry import METHODS
from qpm_lib.explain.target import Target
from qpm_lib.model import Skipped, peak_position
from qpm_lib.plotting import PALETTE, new_figure, overlay, show_images, signed_overlay

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_SIDE = 192  # pixels of a panel


@dataclass(frozen=True)
class ExplainedPicture:
    """Maps of several methods for one picture and one class.

    Attributes
    ----------
    file : the picture. target, score : the class that is explained, and its logit. predicted : the class with the
        largest logit. maps : by method, (g, g).
    """

    file: str
    target: str
    score: float
    predicted: str
    image: Image.Image
    maps: Mapping[str, Float[np.ndarray, "g g"]]

    def numbers(self, aspect: str) -> dict[str, object]:
        """What goes into JSON: sum, smallest and largest value of each map, and the pixel of the picture at the centre
        of its strongest patch.
        """
        maps = {
            name: {
                "sum": float(heat.sum()),
                "min": float(heat.min()),
                "max": float(heat.max()),
                "peak": peak_position(heat, self.image.size, aspect),
            }
            for name, heat in self.maps.items()
        }
        told = {"file": self.file, "target": self.target, "score": self.score, "predicted": self.predicted}
        return {**told, "maps": maps}


def explain_files(
    target: Target,
    methods: Mapping[str, ExplanationMethod],
    files: Sequence[Path],
    class_names: Sequence[str],
    *,
    wanted: int | None = None,
    batch_size: int = 16,
) -> Iterator[ExplainedPicture | Skipped]:
    """Explain picture files in order, a batch at a time; what cannot be read becomes `Skipped` and stops nothing.

    Parameters
    ----------
    wanted : the class to explain; None takes the predicted one of each picture.
    """
    for start in range(0, len(files), batch_size):
        read: list[Image.Image | Skipped] = []
        for path in files[start : start + batch_size]:
            try:
                read.append(read_image(path))
            except UnreadableError as error:
                read.append(Skipped(str(path), error.reason))
        images = [image for image in read if isinstance(image, Image.Image)]
        found = _explained(target, methods, images, wanted) if images else iter(())
        for path, image in zip(files[start : start + batch_size], read, strict=True):
            if isinstance(image, Skipped):
                yield image
                continue
            label, score, best, maps = next(found)
            yield ExplainedPicture(str(path), class_names[label], score, class_names[best], image, maps)


def _explained(
    target: Target, methods: Mapping[str, ExplanationMethod], images: Sequence[Image.Image], wanted: int | None
) -> Iterator[tuple[int, float, int, dict[str, np.ndarray]]]:
    with torch.no_grad():
        logits = target(target.pixels(images)).cpu()
    best = logits.argmax(1)
    labels = best if wanted is None else torch.full_like(best, wanted)
    maps = {name: method(images, labels).numpy() for name, method in methods.items()}
    scores = logits.gather(1, labels[:, None])[:, 0].tolist()
    for i, (label, score) in enumerate(zip(labels.tolist(), scores, strict=True)):
        yield label, score, int(best[i]), {name: found[i] for name, found in maps.items()}


def map_panels(
    picture: Float[np.ndarray, "h w 3"], maps: Mapping[str, Float[np.ndarray, "g g"]]
) -> list[Float[np.ndarray, "h w 3"]]:
    """Every map over the picture, scaled by itself. Where a method has a sign, zero is grey and values below it have
    the second colour; elsewhere, as their papers do it, the smallest value is grey.
    """
    return [
        (
            signed_overlay(picture, heat)
            if METHODS[name].signed
            else overlay(picture, METHODS[name].drawn(heat), PALETTE[3])
        )
        for name, heat in maps.items()
    ]


def map_figure(found: ExplainedPicture, target: Target, *, columns: int = 6) -> "Figure":
    """The picture and all maps beside each other."""
    picture = np.asarray(target.backbone.square(found.image, _SIDE)) / 255
    panels = [picture, *map_panels(picture, found.maps)]
    entries = [METHODS[name] for name in found.maps]
    titles = ["picture", *(one.title if one.class_specific else f"{one.title}, any class" for one in entries)]
    columns = min(columns, len(panels))
    rows = -(-len(panels) // columns)
    figure = new_figure((1.9 * columns, 2.2 * rows + 0.4))
    also = "" if found.predicted == found.target else f"; predicted is {found.predicted}"
    caption = f"why {found.target} ({found.score:.2f}){also}\neach map on its own scale"
    show_images(figure.subplots(), panels, columns=columns, titles=titles, caption=caption)
    return figure
