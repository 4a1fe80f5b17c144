from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from qpm_lib.core.config import DataConfig
from qpm_lib.data.cub import read_cub
from qpm_lib.data.folder import read_folder
from qpm_lib.data.load import load_dataset
from qpm_lib.data.parts import part_cells
from qpm_lib.data.toy.scenes import ATTRIBUTES, load_scenes, write_toybirds


@pytest.fixture
def birds(tmp_path):
    root = tmp_path / "birds"
    write_toybirds(root, n_species=2, train_per_class=2, test_per_class=1)
    return root


def edit(path, change):
    path.write_text(change(path.read_text()))


def test_toy_birds_are_a_data_set_in_cub_layout(toy):
    assert len(toy) == 36
    assert toy.is_train.sum() == 24
    assert np.bincount(toy.labels).tolist() == [9] * 4
    assert toy.image(0).size == (128, 128)
    assert toy.class_attributes.shape == (4, len(ATTRIBUTES))
    assert set(np.unique(toy.class_attributes)) == {0.0, 1.0}
    assert (toy.image_attributes <= (toy.class_attributes[toy.labels] > 0)).all()


def test_boxes_parts_and_masks_agree(toy):
    for row in range(0, len(toy), 7):
        mask = toy.mask(row)
        y, x = np.nonzero(mask)
        np.testing.assert_allclose(toy.boxes[row], [x.min(), y.min(), np.ptp(x) + 1, np.ptp(y) + 1])
        inside = toy.parts.xy[row][toy.parts.visible[row]]
        assert (inside >= toy.boxes[row][:2]).all()
        assert (inside <= toy.boxes[row][:2] + toy.boxes[row][2:]).all()


def test_parts_find_their_patches(toy):
    rows = np.arange(0, len(toy), 9)
    cells, visible = part_cells(toy, rows, 8)
    np.testing.assert_array_equal(visible, toy.parts.visible[rows])
    for row, cell in zip(rows, cells, strict=True):
        width, height = toy.image(int(row)).size
        np.testing.assert_array_equal(cell, (toy.parts.xy[row] * 8 / [width, height]).astype(int).clip(0, 7))
        inside = toy.parts.visible[row]
        patch = np.array([width, height]) / 8
        assert (np.abs((cell[inside] + 0.5) * patch - toy.parts.xy[row][inside]) <= patch / 2 + 1e-6).all()
    with pytest.raises(ValueError, match="no part locations"):
        part_cells(replace(toy, parts=None), rows, 8)


def test_scenes_draw_the_pictures_of_the_data_set_again(toy):
    scenes = load_scenes(toy.root)
    np.testing.assert_array_equal(scenes.render(toy, 5).image, np.asarray(toy.image(5)))
    changed = scenes.render(toy, 5, without=["beak"], eye="red")
    assert (changed.image != np.asarray(toy.image(5))).any()
    with pytest.raises(ValueError, match="hat"):
        scenes.render(toy, 5, hat="top")


def test_scenes_need_rendered_pictures(tmp_path):
    with pytest.raises(ValueError, match="holds no toy birds"):
        load_scenes(tmp_path)


def test_the_data_set_is_the_same_every_time(birds, tmp_path):
    write_toybirds(tmp_path / "again", n_species=2, train_per_class=2, test_per_class=1)
    assert read_cub(birds).fingerprint == read_cub(tmp_path / "again").fingerprint
    other = tmp_path / "other"
    write_toybirds(other, n_species=2, train_per_class=2, test_per_class=1, seed=9)
    assert read_cub(other).fingerprint != read_cub(birds).fingerprint


def test_a_stopped_rendering_leaves_nothing(tmp_path, monkeypatch):
    from qpm_lib.data.toy import scenes

    def stop(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(scenes, "write_json", stop)
    with pytest.raises(KeyboardInterrupt):
        write_toybirds(tmp_path / "birds", n_species=2, train_per_class=1, test_per_class=1)
    assert list(tmp_path.iterdir()) == []


def test_toy_root_with_something_else_in_it_is_not_touched(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("important")
    with pytest.raises(ValueError, match="holds no toy birds"):
        load_dataset(DataConfig(root=str(tmp_path / "mine")))
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "important"


@pytest.mark.parametrize(
    ("file", "change", "words"),
    [
        (
            "image_class_labels.txt",
            lambda t: "\n".join(t.splitlines()[1:]),
            "image_class_labels.txt has no entry for picture 1",
        ),
        ("image_class_labels.txt", lambda t: t.replace("1 1\n", "1 77\n", 1), "class 77"),
        ("image_class_labels.txt", lambda t: t.replace("1 1\n", "1 x\n", 1), "not a number"),
        ("train_test_split.txt", lambda t: "1\n" + t, "line 1"),
        ("train_test_split.txt", lambda t: t.replace(" 1\n", " 0\n"), "no training pictures"),
        ("images.txt", lambda t: "", "images.txt is empty"),
        ("images.txt", lambda t: t.replace("1 001", "1 ../../001", 1), "outside the folder"),
        ("classes.txt", lambda t: t + "3 003.Dodo\n", "2 rows for 3 classes"),
    ],
)
def test_inconsistent_files_are_named(birds, file, change, words):
    edit(birds / file, change)
    with pytest.raises(ValueError, match=words):
        read_cub(birds)


def test_a_folder_in_another_layout_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"images\.txt is missing"):
        read_cub(tmp_path)
    with pytest.raises(ValueError, match=r"data\.root is empty"):
        load_dataset(DataConfig(kind="cub"))


@pytest.mark.parametrize("damage", ["truncated", "empty", "text", "missing"])
def test_damaged_pictures_are_named_or_left_out(birds, damage):
    victim = read_cub(birds).root / read_cub(birds).files[0]
    content = victim.read_bytes()
    if damage == "missing":
        victim.unlink()
    else:
        victim.write_bytes({"truncated": content[: len(content) // 2], "empty": b"", "text": b"not a picture"}[damage])
    with pytest.raises(ValueError, match=f"{victim.name} is (damaged|missing).*skip_damaged"):
        read_cub(birds).image(0)
    kept = load_dataset(DataConfig(kind="cub", root=str(birds), skip_damaged=True))
    assert len(kept) == 5
    assert list(kept.skipped) == [f"images/{victim.parent.name}/{victim.name}"]
    assert next(iter(kept.skipped.values())).startswith("missing" if damage == "missing" else "damaged (")
    assert len(kept.boxes) == len(kept.masks) == len(kept.parts.xy) == len(kept.image_attributes) == 5
    np.testing.assert_array_equal(kept.labels, read_cub(birds).labels[1:])


def test_leaving_out_a_whole_class_is_an_error(birds):
    for row in (0, 1):
        (birds / read_cub(birds).files[row]).write_bytes(b"")
    with pytest.raises(ValueError, match="no training pictures"):
        load_dataset(DataConfig(kind="cub", root=str(birds), skip_damaged=True))


def test_missing_segmentations(birds):
    (birds / "segmentations").rename(birds / "elsewhere")
    dataset = read_cub(birds)
    assert dataset.masks is None
    with pytest.raises(ValueError, match="no segmentations"):
        dataset.mask(0)


def test_folder_of_pictures(tmp_path):
    for name, count in (("cat", 10), ("Hündin", 4), (".hidden", 3)):
        (tmp_path / name).mkdir()
        for k in range(count):
            Image.new("L", (20, 10), k).save(tmp_path / name / f"{k}.png")
        (tmp_path / name / "notes.txt").write_text("x")
    dataset = read_folder(tmp_path, test_share=0.3, seed=1)
    assert dataset.class_names == ("Hündin", "cat")
    assert np.bincount(dataset.labels[~dataset.is_train]).tolist() == [1, 3]
    assert dataset.image(0).mode == "RGB"
    again, other = read_folder(tmp_path, test_share=0.3, seed=1), read_folder(tmp_path, test_share=0.3, seed=2)
    np.testing.assert_array_equal(dataset.is_train, again.is_train)
    assert (dataset.is_train != other.is_train).any()


def test_bad_folders(tmp_path):
    with pytest.raises(ValueError, match="is not a folder"):
        read_folder(tmp_path / "nowhere")
    (tmp_path / "only").mkdir()
    with pytest.raises(ValueError, match="at least two classes"):
        read_folder(tmp_path)
    (tmp_path / "second").mkdir()
    with pytest.raises(ValueError, match="holds 0 pictures"):
        read_folder(tmp_path)


@pytest.mark.photographs
def test_photographs_in_the_official_layout(photographs):
    dataset = read_cub(photographs)
    assert (len(dataset), int(dataset.is_train.sum()), len(dataset.class_names)) == (323, 180, 6)
    assert dataset.masks is None
    assert dataset.class_attributes.shape == (6, 312)
    assert len(dataset.parts.names) == 15
    for row in range(0, 323, 40):
        width, height = dataset.image(row).size
        x, y, w, h = dataset.boxes[row]
        assert 0 <= x <= x + w <= width + 1
        assert 0 <= y <= y + h <= height + 1
        seen = dataset.parts.xy[row][dataset.parts.visible[row]]
        assert (seen <= [width, height]).all()
