"""Stanford Cars and FGVC-Aircraft, read from tiny data sets in their official layout."""

import re

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from qpm_lib.data.aircraft import read_aircraft
from qpm_lib.data.cars import read_cars
from qpm_lib.data.dataset import without_damaged
from qpm_lib.data.download import inventory

FIELDS = ("bbox_x1", "bbox_y1", "bbox_x2", "bbox_y2", "class", "fname")
CAR_ROWS = [(1, 1, 20, 10, 1, "00001.jpg"), (3, 2, 18, 9, 2, "00002.jpg"), (5, 4, 12, 8, 2, "00003.jpg")]
AIRCRAFT_FILES = {
    "variants.txt": "707-320\nCessna 172\nF/A-18\n",
    "images_variant_trainval.txt": "0000001 707-320\n0000002 Cessna 172\n0000003 F/A-18\n",
    "images_variant_test.txt": "0000004 707-320\n0000005 Cessna 172\n0000006 F/A-18\n",
    "images_box.txt": "".join(f"000000{k} {k} 2 15 8\n" for k in range(6, 1, -1)) + "0000001 0 1 20 10\n",
}


def picture(path, colour=90):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (20, 10), (colour, 0, 0)).save(path)


def save_annotations(path, rows, fields=FIELDS):
    table = np.zeros((1, len(rows)), dtype=[(field, object) for field in fields])
    for k, row in enumerate(rows):
        for field, value in zip(FIELDS, row, strict=True):
            if field in fields:
                table[field][0, k] = value
    savemat(path, {"annotations": table})


@pytest.fixture
def cars(tmp_path):
    """Two models; the same file names in both halves, as in the official data set."""
    root = tmp_path / "stanford_cars"
    (root / "devkit").mkdir(parents=True)
    names = np.empty((1, 2), object)
    names[0] = ["AM General Hummer SUV 2000", "Ram C/V Cargo Van Minivan 2012"]
    savemat(root / "devkit" / "cars_meta.mat", {"class_names": names})
    save_annotations(root / "devkit" / "cars_train_annos.mat", CAR_ROWS)
    save_annotations(root / "devkit" / "cars_test_annos.mat", CAR_ROWS[:2], [f for f in FIELDS if f != "class"])
    save_annotations(root / "cars_test_annos_withlabels.mat", CAR_ROWS[:2])
    for folder, count in (("cars_train", 3), ("cars_test", 2)):
        for k in range(count):
            picture(root / folder / f"0000{k + 1}.jpg")
    return root


@pytest.fixture
def aircraft(tmp_path):
    root = tmp_path / "fgvc-aircraft-2013b"
    for k in range(1, 7):
        picture(root / "data" / "images" / f"000000{k}.jpg")
    for name, text in AIRCRAFT_FILES.items():
        (root / "data" / name).write_text(text)
    return root


def test_cars(cars):
    dataset = read_cars(cars)
    assert dataset.files == (
        "cars_train/00001.jpg",
        "cars_train/00002.jpg",
        "cars_train/00003.jpg",
        "cars_test/00001.jpg",
        "cars_test/00002.jpg",
    )
    assert dataset.labels.tolist() == [0, 1, 1, 0, 1]
    assert dataset.is_train.tolist() == [True, True, True, False, False]
    assert dataset.class_names == ("AM General Hummer SUV 2000", "Ram C/V Cargo Van Minivan 2012")
    np.testing.assert_array_equal(dataset.boxes[:3], [[0, 0, 20, 10], [2, 1, 16, 8], [4, 3, 8, 5]])
    assert dataset.image(4).size == (20, 10)
    assert dataset.masks is None
    assert inventory(dataset) == "5 pictures (3 training, 2 test), 2 classes"
    assert dataset.fingerprint == read_cars(cars.parent).fingerprint
    assert read_cars(cars.parent).root == cars


def test_cars_with_all_annotations_in_the_devkit(cars):
    expected = read_cars(cars).fingerprint
    (cars / "cars_test_annos_withlabels.mat").rename(cars / "devkit" / "cars_test_annos_withlabels.mat")
    assert read_cars(cars).fingerprint == expected


def test_one_car_in_a_split(cars):
    """MATLAB knows no flat arrays: a split of one picture must not lose its axis."""
    save_annotations(cars / "cars_test_annos_withlabels.mat", CAR_ROWS[:1])
    with pytest.raises(ValueError, match="'Ram C/V Cargo Van Minivan 2012' has no test pictures"):
        read_cars(cars)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("devkit", r"holds no devkit, and no stanford_cars/devkit.*cars_meta\.mat.*fetch_cars\.py"),
        ("devkit/cars_meta.mat", r"cars_meta\.mat is missing.*fetch_cars\.py"),
        ("devkit/cars_train_annos.mat", r"cars_train_annos\.mat is missing.*fetch_cars\.py"),
        (
            "cars_test_annos_withlabels.mat",
            r"withlabels\.mat is missing \(cars_test_annos\.mat, which is there, has no classes\).*fetch_cars\.py",
        ),
        ("cars_train", r"cars_train is missing.*fetch_cars\.py"),
        ("cars_test", r"cars_test is missing.*fetch_cars\.py"),
    ],
)
def test_missing_files_of_cars_are_named(cars, name, words):
    (cars / name).rename(cars.parent / "elsewhere")
    with pytest.raises(ValueError, match=words):
        read_cars(cars)


@pytest.mark.parametrize("content", [b"", b"not MATLAB at all, but long enough to have a header " * 8, None])
def test_damaged_annotations_of_cars_are_named(cars, content):
    path = cars / "devkit" / "cars_train_annos.mat"
    path.write_bytes(path.read_bytes()[:300] if content is None else content)
    with pytest.raises(ValueError, match=r"cars_train_annos\.mat is damaged or no MATLAB file"):
        read_cars(cars)


@pytest.mark.parametrize(
    ("row", "words"),
    [
        (
            (1, 1, 20, 10, 3, "00001.jpg"),
            r"cars_train_annos\.mat uses class 3, but cars_meta\.mat lists classes 1 to 2",
        ),
        ((1, 1, 20, 10, 0, "00001.jpg"), "uses class 0"),
        ((1, 1, 20, "wide", 1, "00001.jpg"), "not a number"),
        ((1, 1, 20, 10, 1, "../../00001.jpg"), "outside the folder"),
        ((1, 1, 20, 10, 1, "/00001.jpg"), "outside the folder"),
        ((1, 1, 20, 10, 1, "C:00001.jpg"), "outside the folder"),
        ((1, 1, 20, 10, 1, "..\\00001.jpg"), "outside the folder"),
        ((1, 1, 20, 10, 1, "00002.jpg"), "'00002.jpg' twice"),
    ],
)
def test_inconsistent_annotations_of_cars_are_named(cars, row, words):
    save_annotations(cars / "devkit" / "cars_train_annos.mat", [row, *CAR_ROWS[1:]])
    with pytest.raises(ValueError, match=words):
        read_cars(cars)


def test_test_annotations_without_labels_are_refused(cars):
    (cars / "devkit" / "cars_test_annos.mat").replace(cars / "cars_test_annos_withlabels.mat")
    with pytest.raises(ValueError, match="no field 'class'.*take the file with labels"):
        read_cars(cars)
    savemat(cars / "cars_test_annos_withlabels.mat", {"something": np.zeros(3)})
    with pytest.raises(ValueError, match="no variable 'annotations'"):
        read_cars(cars)


def test_pictures_a_folder_too_deep(cars):
    (cars / "cars_train" / "cars_train").mkdir()
    with pytest.raises(ValueError, match="one folder too deep: move its pictures up"):
        read_cars(cars)


def test_missing_pictures_are_counted_or_left_out(cars):
    (cars / "cars_train" / "00003.jpg").unlink()
    dataset = read_cars(cars)
    with pytest.raises(ValueError, match=r"lacks 1 of 5 pictures, the first is cars_train/00003\.jpg"):
        inventory(dataset)
    kept = without_damaged(dataset)
    assert list(kept.skipped) == ["cars_train/00003.jpg"]
    assert len(kept) == len(kept.boxes) == 4


def test_aircraft(aircraft):
    dataset = read_aircraft(aircraft)
    assert dataset.files == tuple(f"data/images/000000{k}.jpg" for k in range(1, 7))
    assert dataset.labels.tolist() == [0, 1, 2, 0, 1, 2]
    assert dataset.is_train.tolist() == [True] * 3 + [False] * 3
    assert dataset.class_names == ("707-320", "Cessna 172", "F/A-18")
    np.testing.assert_array_equal(dataset.boxes[:3], [[0, 0, 20, 10], [1, 1, 14, 7], [2, 1, 13, 7]])
    assert dataset.image(5).size == (20, 10)
    assert inventory(dataset) == "6 pictures (3 training, 3 test), 3 classes"
    assert dataset.fingerprint == read_aircraft(aircraft.parent).fingerprint


@pytest.mark.parametrize(
    "name", ["variants.txt", "images_variant_trainval.txt", "images_variant_test.txt", "images_box.txt", "images"]
)
def test_missing_files_of_aircraft_are_named(aircraft, name):
    (aircraft / "data" / name).rename(aircraft.parent / "elsewhere")
    with pytest.raises(
        ValueError,
        match=rf"{re.escape(name)}( is missing|, and no fgvc-aircraft-2013b/data/variants\.txt).*fetch_aircraft\.py",
    ):
        read_aircraft(aircraft)


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("variants.txt", "\n", r"variants\.txt is empty"),
        ("variants.txt", "707-320\nF/A-18\n", "uses variant 'Cessna 172', which variants.txt does not list"),
        ("images_variant_trainval.txt", "0000001\n", "a picture and a value expected, found '0000001'"),
        ("images_variant_trainval.txt", "../../secret 707-320\n", "'../../secret', which lies outside"),
        ("images_variant_trainval.txt", "/secret 707-320\n", "'/secret', which lies outside"),
        ("images_variant_trainval.txt", "0000004 707-320\n", "'0000004' twice"),
        ("images_variant_trainval.txt", "0000001 707-320\n", "no training pictures"),
        ("images_box.txt", "0000001 1 1 20 10\n", r"no box for picture 0000002 \(5 such pictures\)"),
        ("images_box.txt", AIRCRAFT_FILES["images_box.txt"].replace("2 15 8", "2 15 wide"), "four numbers"),
        ("images_box.txt", AIRCRAFT_FILES["images_box.txt"].replace("2 15 8", "2 15"), "four numbers"),
    ],
)
def test_inconsistent_files_of_aircraft_are_named(aircraft, name, text, words):
    (aircraft / "data" / name).write_text(text)
    with pytest.raises(ValueError, match=words):
        read_aircraft(aircraft)


def test_a_binary_file_among_the_texts_of_aircraft(aircraft):
    (aircraft / "data" / "images_variant_test.txt").write_bytes(b"\xff\xfe\x80")
    with pytest.raises(ValueError, match=r"images_variant_test\.txt is no text file"):
        read_aircraft(aircraft)
