"""Labelled pictures: rendered toy birds, CUB-200-2011, Stanford Cars, FGVC-Aircraft, folders and lists,
all as one `ImageDataset`.

Another data set needs a reader here, its kind in `load.py` and in `DataConfig` (`core/config.py`), and perhaps a
profile.
"""

from qpm_lib.data.aircraft import read_aircraft
from qpm_lib.data.cars import read_cars
from qpm_lib.data.cub import read_cub
from qpm_lib.data.dataset import ImageDataset, PartLocations
from qpm_lib.data.download import inventory, obtain, told_by
from qpm_lib.data.folder import EXTENSIONS, is_picture, read_folder, read_manifest
from qpm_lib.data.load import find_dataset, load_dataset
from qpm_lib.data.parts import part_cells
from qpm_lib.data.pictures import UnreadableError, all_rgb, picture_position, read_image, to_rgb
from qpm_lib.data.toy.bird import FACTOR_PART, FACTORS, PARTS, Bird
from qpm_lib.data.toy.render import CLUTTER, render
from qpm_lib.data.toy.scenes import ATTRIBUTES, Scenes, load_scenes, present, write_toybirds
from qpm_lib.data.toy.species import make_species, random_bird
from qpm_lib.data.toy.watermark import watermark

__all__ = [
    "ATTRIBUTES",
    "Bird",
    "CLUTTER",
    "EXTENSIONS",
    "FACTORS",
    "FACTOR_PART",
    "ImageDataset",
    "PARTS",
    "PartLocations",
    "Scenes",
    "UnreadableError",
    "all_rgb",
    "find_dataset",
    "inventory",
    "is_picture",
    "load_dataset",
    "load_scenes",
    "make_species",
    "obtain",
    "part_cells",
    "picture_position",
    "present",
    "random_bird",
    "read_aircraft",
    "read_cars",
    "read_cub",
    "read_folder",
    "read_image",
    "read_manifest",
    "render",
    "to_rgb",
    "told_by",
    "watermark",
    "write_toybirds",
]
