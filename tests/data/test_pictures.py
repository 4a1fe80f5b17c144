"""Pictures of every kind, cropping, and where parts end up: through files, boxes and the backbone's square."""

import csv
import struct
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from qpm_lib.backbones.frozen import load_backbone
from qpm_lib.core.config import DataConfig
from qpm_lib.data.cub import read_cub
from qpm_lib.data.dataset import ImageDataset, PartLocations
from qpm_lib.data.folder import read_folder, read_manifest
from qpm_lib.data.load import load_dataset
from qpm_lib.data.parts import part_cells
from qpm_lib.data.pictures import picture_position, read_image, square_position, to_rgb


def ramp(width=40, height=30):
    """Brightness grows from left to right and from top to bottom."""
    x, y = np.meshgrid(np.linspace(0, 1, width), np.linspace(0, 1, height))
    return 100 * x + 100 * y + 25


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "CMYK", "RGBA", "LA", "1"])
def test_every_mode_becomes_the_same_rgb(mode, tmp_path):
    grey = Image.fromarray(ramp().astype(np.uint8))
    path = tmp_path / ("picture.tif" if mode == "CMYK" else "picture.png")
    colour = grey.convert("RGB")
    (colour.quantize(256) if mode == "P" else colour.convert(mode)).save(path)
    image = read_image(path)
    assert image.mode == "RGB"
    assert image.size == (40, 30)
    if mode != "1":
        assert np.abs(np.asarray(image).mean(2) - np.asarray(grey)).max() <= 8


@pytest.mark.parametrize("kind", ["I;16", "I", "F"])
def test_sixteen_bits_are_scaled(kind, tmp_path):
    deep = (ramp() * 257).astype({"I;16": np.uint16, "I": np.int32, "F": np.float32}[kind])
    Image.fromarray(deep).save(tmp_path / "deep.tif")
    assert np.abs(np.asarray(read_image(tmp_path / "deep.tif"))[..., 0] - ramp()).max() <= 1


def test_transparent_is_white(tmp_path):
    Image.new("RGBA", (4, 4), (0, 0, 0, 0)).save(tmp_path / "clear.png")
    palette = Image.new("P", (4, 4), 3)
    palette.putpalette([0, 0, 0] * 256)
    palette.save(tmp_path / "palette.png", transparency=3)
    for name in ("clear.png", "palette.png"):
        assert (np.asarray(read_image(tmp_path / name)) == 255).all()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(orientation, tmp_path):
    upright = Image.fromarray(ramp().astype(np.uint8)).convert("RGB")
    undo = {2: [0], 3: [3], 4: [1], 5: [5], 6: [2], 7: [6], 8: [4]}.get(orientation, [])
    stored = upright
    for step in undo:
        stored = stored.transpose(Image.Transpose(step))
    exif = Image.Exif()
    exif[274] = orientation
    stored.save(tmp_path / "turned.png", exif=exif)
    np.testing.assert_array_equal(np.asarray(read_image(tmp_path / "turned.png")), np.asarray(upright))
    np.testing.assert_array_equal(np.asarray(read_image(tmp_path / "turned.png", upright=False)), np.asarray(stored))


def test_annotated_pictures_are_not_turned(tmp_path):
    """Boxes and parts count pixels of the file."""
    exif = Image.Exif()
    exif[274] = 6
    Image.new("RGB", (40, 30)).save(tmp_path / "a.jpg", exif=exif)
    plain = ImageDataset(tmp_path, ("a.jpg", "a.jpg"), np.array([0, 0]), np.array([True, False]), ("bird",))
    assert plain.image(0).size == (30, 40)
    assert replace(plain, boxes=np.array([[0, 0, 40, 30.0]] * 2)).image(0).size == (40, 30)


def spotted(tmp_path, size, spot, box=None):
    """A grey picture with one white spot, which is also its only part."""
    image = np.full((size[1], size[0], 3), 60, np.uint8)
    x, y = spot
    image[y - 2 : y + 3, x - 2 : x + 3] = 255
    Image.fromarray(image).save(tmp_path / "spot.png")
    Image.fromarray(image[..., 0] > 200).save(tmp_path / "mask.png")
    parts = PartLocations(("spot",), np.array([[[x + 0.5, y + 0.5]]] * 2), np.ones((2, 1), bool))
    dataset = ImageDataset(
        tmp_path,
        ("spot.png", "spot.png"),
        np.array([0, 0]),
        np.array([True, False]),
        ("bird",),
        boxes=np.array([box or (0, 0, *size)] * 2, float),
        parts=parts,
        masks=("mask.png", "mask.png"),
    )
    return dataset.crop_to_boxes() if box else dataset


@pytest.mark.parametrize("aspect", ["squash", "crop"])
@pytest.mark.parametrize(
    ("size", "spot", "box"),
    [
        ((200, 120), (90, 50), None),
        ((120, 200), (50, 90), None),
        ((200, 120), (90, 50), (40.0, 10.0, 120.0, 80.0)),
        ((200, 120), (120, 70), (80.4, 30.7, 60.2, 89.3)),
        ((128, 128), (101, 17), None),
    ],
)
def test_parts_stay_on_their_pixels_through_every_transform(aspect, size, spot, box, tmp_path):
    """The brightest patch of what the backbone sees is the patch in which the part is said to be."""
    dataset, grid = spotted(tmp_path, size, spot, box), 16
    seen = load_backbone("toy", aspect=aspect).preprocess([dataset.image(0)])[0, 0].numpy()
    rows, columns = np.nonzero(seen > 0.7 * seen.max())
    cells, visible = part_cells(dataset, np.array([0]), grid, aspect=aspect)
    assert visible.all()
    centre = np.array([columns.mean() + 0.5, rows.mean() + 0.5]) / (128 / grid)
    assert np.abs(cells[0, 0] + 0.5 - centre).max() <= 0.6
    y, x = np.nonzero(dataset.mask(0))
    bright = np.asarray(dataset.image(0))[y, x]
    assert (bright == 255).all()
    assert dataset.mask(0).shape == dataset.image(0).size[::-1]


def test_parts_that_a_crop_cuts_away_are_not_visible(tmp_path):
    cells, visible = part_cells(spotted(tmp_path, (200, 100), (10, 50)), np.array([0]), 16, aspect="crop")
    assert not visible.any()
    assert cells.shape == (1, 1, 2)


@pytest.mark.parametrize("aspect", ["squash", "crop"])
def test_positions_go_there_and_back(aspect):
    xy = np.array([[3.0, 4.0], [50.0, 20.0]])
    np.testing.assert_allclose(picture_position(square_position(xy, (80, 60), aspect), (80, 60), aspect), xy)


def test_annotated_pictures_are_not_turned_on_the_way_to_the_model_either(tmp_path):
    exif = Image.Exif()
    exif[274] = 6
    Image.new("RGB", (40, 30)).save(tmp_path / "a.jpg", exif=exif)
    assert to_rgb(read_image(tmp_path / "a.jpg", upright=False)).size == (40, 30)


def test_broken_exif_is_a_damaged_picture(tmp_path, monkeypatch):
    Image.new("RGB", (4, 4)).save(tmp_path / "a.jpg")

    def broken(image):
        raise struct.error("unpack requires a buffer of 2 bytes")

    monkeypatch.setattr("qpm_lib.data.pictures.ImageOps.exif_transpose", broken)
    with pytest.raises(ValueError, match=r"a.jpg is damaged \(unpack requires"):
        read_image(tmp_path / "a.jpg")


def test_cropping_needs_boxes_and_changes_the_fingerprint(tmp_path, toy):
    assert toy.crop_to_boxes().fingerprint != toy.fingerprint
    with pytest.raises(ValueError, match="no bounding boxes"):
        replace(toy, boxes=None).crop_to_boxes()
    with pytest.raises(ValueError, match="does not go with data.kind=toybirds"):
        load_dataset(DataConfig(crop=True))
    assert load_dataset(DataConfig(kind="cub", root=str(toy.root), crop=True)).image(0).size[0] < 128


# -- CSV files


def write_csv(tmp_path, rows, header=("file", "label", "split")):
    for name in {row[0] for row in rows}:
        target = tmp_path / name
        if target.suffix == ".png" and target.resolve().is_relative_to(tmp_path):
            target.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (8, 8)).save(target)
    with open(tmp_path / "list.csv", "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])
    return tmp_path / "list.csv"


GOOD = [
    ("a/1.png", "owl", "train"),
    ("a/2.png", "owl", "test"),
    ("b/1.png", "Zaunkönig", "train"),
    ("b/ü 2.png", "Zaunkönig", "test"),
]


def test_a_csv_file_with_and_without_a_split(tmp_path):
    path = write_csv(tmp_path, GOOD)
    dataset = load_dataset(DataConfig(kind="csv", root=str(path)))
    assert dataset.class_names == ("Zaunkönig", "owl")
    assert dataset.is_train.tolist() == [True, False, True, False]
    assert dataset.image(3).size == (8, 8)
    path = write_csv(tmp_path, [row[:2] for row in GOOD], header=("file", "label"))
    first, second = (read_manifest(path, seed=1) for _ in range(2))
    assert (first.is_train == second.is_train).all()
    assert np.bincount(first.labels[first.is_train]).tolist() == [1, 1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: [*rows, ("../secret.png", "owl", "train")], "line 6: '../secret.png' lies outside"),
        (lambda rows: [*rows, ("/etc/passwd", "owl", "train")], "lies outside"),
        (lambda rows: [*rows, rows[0]], "listed twice"),
        (lambda rows: [*rows, ("./a//1.png", "owl", "test")], "listed twice"),
        (lambda rows: [*rows, ("a/1,5.png", "owl")], "line 6: 2 values for 3 columns"),
        (lambda rows: [*rows, ("c.png", "", "train")], "must not be empty"),
        (lambda rows: [*rows, ("c.png", "owl", "validation")], "must be train or test"),
        (lambda rows: [*rows, ("c.png", "emu", "train")], "class 'emu' has one picture"),
        (lambda rows: rows[:2], "names 1 classes"),
        (lambda rows: [*rows[:3], ("b/2.png", "Zaunkönig", "train")], "no test pictures"),
    ],
)
def test_bad_csv_files(change, message, tmp_path):
    path = write_csv(tmp_path, change(GOOD))
    with pytest.raises(ValueError, match=message):
        read_manifest(path)


def test_a_csv_file_without_columns_or_none_at_all(tmp_path):
    with pytest.raises(ValueError, match="label missing"):
        read_manifest(write_csv(tmp_path, [row[:1] for row in GOOD], header=("file",)))
    with pytest.raises(ValueError, match="is not a CSV file"):
        read_manifest(tmp_path)
    (tmp_path / "bad.csv").write_bytes(b"file,label\n\xff\xfe,a\n")
    with pytest.raises(ValueError, match="UTF-8"):
        read_manifest(tmp_path / "bad.csv")


# -- bad pictures


def test_damaged_pictures_are_named_or_left_out(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for i in range(3):
            Image.new("RGB", (16, 16)).save(tmp_path / name / f"{i}.jpg")
    whole = (tmp_path / "a" / "0.jpg").read_bytes()
    (tmp_path / "a" / "3 truncated.jpg").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "a" / "4 empty.jpg").write_bytes(b"")
    (tmp_path / "b" / "5 text.png").write_text("no picture")
    (tmp_path / "b" / "6 really a png.jpg").write_bytes(_png_bytes(tmp_path))
    (tmp_path / "b" / "7 loop.png").symlink_to(tmp_path / "b" / "7 loop.png")
    (tmp_path / "c loop").symlink_to(tmp_path / "c loop")
    dataset = load_dataset(DataConfig(kind="folder", root=str(tmp_path), skip_damaged=True))
    assert sorted(dataset.skipped) == ["a/3 truncated.jpg", "a/4 empty.jpg", "b/5 text.png"]
    assert "b/6 really a png.jpg" in dataset.files
    everything = read_folder(tmp_path)
    with pytest.raises(ValueError, match="4 empty.jpg is damaged"):
        everything.image(everything.files.index("a/4 empty.jpg"))


def _png_bytes(tmp_path):
    Image.new("RGB", (5, 5)).save(tmp_path / "b" / "x.png")
    return (tmp_path / "b" / "x.png").read_bytes()


def test_a_decompression_bomb_is_refused(tmp_path):
    Image.new("1", (30_000, 30_000)).save(tmp_path / "bomb.png")
    with pytest.raises(ValueError, match=r"bomb.png is damaged .*exceeds limit"):
        read_image(tmp_path / "bomb.png")


# -- photographs


@pytest.mark.photographs
def test_the_loader_agrees_with_the_official_files(photographs):
    """Read again with nothing but `split`: names, classes, split, boxes and every part of every picture."""
    dataset = read_cub(photographs)

    def table(name):
        return [line.split() for line in (photographs / name).read_text().splitlines()]

    row_of = {image: row for row, (image, _) in enumerate(table("images.txt"))}
    assert dataset.files == tuple(f"images/{name}" for _, name in table("images.txt"))
    names = dict(table("classes.txt"))
    assert [dataset.class_names[c] for c in dataset.labels] == [names[c] for _, c in table("image_class_labels.txt")]
    assert dataset.is_train.tolist() == [split == "1" for _, split in table("train_test_split.txt")]
    np.testing.assert_array_equal(dataset.boxes, np.array([row[1:] for row in table("bounding_boxes.txt")], float))
    for image, part, x, y, seen in table("parts/part_locs.txt"):
        if image in row_of:
            assert dataset.parts.visible[row_of[image], int(part) - 1] == (seen == "1")
            np.testing.assert_allclose(dataset.parts.xy[row_of[image], int(part) - 1], [float(x), float(y)])


@pytest.mark.photographs
@pytest.mark.parametrize("aspect", ["squash", "crop"])
@pytest.mark.parametrize("cropped", [False, True])
def test_parts_of_photographs_keep_their_colours(photographs, aspect, cropped):
    """What the backbone sees at a part has the colour of the file there; anywhere else it has not."""
    whole = read_cub(photographs)
    dataset = whole.crop_to_boxes() if cropped else whole
    backbone = load_backbone("toy", aspect=aspect)
    here, elsewhere = [], []
    for row in range(0, len(dataset), 9):
        original, seen = whole.image(row), np.asarray(backbone.square(dataset.image(row))).astype(float)
        left, top = np.floor(dataset.boxes[row][:2]) if cropped else (0, 0)
        place = square_position(whole.parts.xy[row] - [left, top], dataset.image(row).size, aspect)
        scale = np.array(dataset.image(row).size if aspect == "squash" else [min(dataset.image(row).size)] * 2) / 128
        _, visible = part_cells(dataset, np.array([row]), 128, aspect=aspect)
        for part in np.flatnonzero(visible[0]):
            column, line = np.clip(place[part] * 128, 2, 125).astype(int)
            x, y = whole.parts.xy[row, part]
            box = [round(v) for v in (x - 2 * scale[0], y - 2 * scale[1], x + 2 * scale[0], y + 2 * scale[1])]
            colour = np.asarray(original.crop(box)).reshape(-1, 3).mean(0)
            here.append(
                np.abs(seen[line - 2 : line + 3, column - 2 : column + 3].reshape(-1, 3).mean(0) - colour).mean()
            )
            line, column = (line + 64) % 120 + 3, (column + 64) % 120 + 3
            elsewhere.append(
                np.abs(seen[line - 2 : line + 3, column - 2 : column + 3].reshape(-1, 3).mean(0) - colour).mean()
            )
    assert len(here) > 250
    assert np.median(here) < 6
    assert np.median(elsewhere) > 25
