"""Where annotated parts lie on the patch grid of a backbone."""

import numpy as np
from jaxtyping import Bool, Int
from PIL import Image

from qpm_lib.data.dataset import ImageDataset
from qpm_lib.data.pictures import box_window, square_position


def part_cells(
    dataset: ImageDataset, rows: Int[np.ndarray, "rows"], grid: int, *, aspect: str = "squash"
) -> tuple[Int[np.ndarray, "rows parts 2"], Bool[np.ndarray, "rows parts"]]:
    """Column and row of the patch that holds each part, and whether the part is to be seen in what the backbone gets.

    `aspect` is how pictures are brought to a square (see `FrozenBackbone.preprocess`).

    Raises
    ------
    ValueError : when the data set has no part locations.
    """
    if dataset.parts is None:
        raise ValueError(f"{dataset.root} has no part locations")
    places = []
    for row in rows:
        xy = dataset.parts.xy[row]
        if dataset.cropped:
            with Image.open(dataset.root / dataset.files[row]) as image:
                xy = xy - box_window(dataset.boxes[row], image.size)[:2]
        places.append(square_position(xy, dataset.image(int(row)).size, aspect))
    place = np.array(places).reshape(len(rows), -1, 2)
    inside = ((place >= 0) & (place <= 1)).all(2)
    return np.clip(place * grid, 0, grid - 1).astype(int), dataset.parts.visible[rows] & inside
