"""Check a folder of Stanford Cars (Krause et al., 2013): 16,185 photographs of 196 car models with boxes.
Says how to get it.

    python data_scripts/fetch_cars.py --root data/stanford_cars

Stanford's own download is gone, so this script cannot fetch the pictures. Copies are kept by others; a (free)
Kaggle account is needed. Nobody publishes checksums for them, so look at the counts that this script prints:
16185 pictures (8144 training, 8041 test), 196 classes.

1. Pictures (2 GB): https://www.kaggle.com/datasets/jessicali9530/stanford-cars-dataset
   Unpack it into stanford_cars. Its folders are nested: move the pictures of cars_train/cars_train up into cars_train,
   and those of cars_test/cars_test up into cars_test. Its cars_annos.mat is not needed.
2. Labels: https://www.kaggle.com/datasets/abdelrahmant11/standford-cars-dataset-meta
   Put its folder devkit into stanford_cars, and its file 'cars_test_annos_withlabels (1).mat' beside it, renamed to
   cars_test_annos_withlabels.mat. The devkit's own cars_test_annos.mat has no classes and does not do.
3. Run this script. The folder should be:
     stanford_cars/devkit/cars_meta.mat
     stanford_cars/devkit/cars_train_annos.mat
     stanford_cars/cars_test_annos_withlabels.mat
     stanford_cars/cars_train/00001.jpg ... 08144.jpg
     stanford_cars/cars_test/00001.jpg ... 08041.jpg

Where these pages have moved, https://github.com/pytorch/vision/issues/7545 collects others. The photographs are for
research only.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from qpm_lib.data import inventory, read_cars


def main(argv: Sequence[str] | None = None) -> None:
    """Parse the arguments, check and count; explain what to do where something is missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--root", type=Path, default=Path("data/stanford_cars"), help="folder to check (default: %(default)s)"
    )
    arguments = parser.parse_args(argv)
    try:
        dataset = read_cars(arguments.root)
        print(f"{dataset.root}: {inventory(dataset)}")
    except (ValueError, OSError) as error:
        parser.exit(1, f"error: {error}\n\n{__doc__}")
    print(f"next: qpm run --profile cars --set data.root={dataset.root}")


if __name__ == "__main__":
    main()
