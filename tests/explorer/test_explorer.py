"""The explorer without a browser: values are set, buttons are clicked, and what the widgets then show is checked."""

import io
import re
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from qpm_lib.conformal.sets import HierarchicalSets
from qpm_lib.data.dataset import ImageDataset
from qpm_lib.explorer.controls import PER_PAGE
from qpm_lib.explorer.widget import explore
from qpm_lib.explorer.words import said
from qpm_lib.features.store import FeatureStore
from qpm_lib.model.calibrated import calibrate, strengths
from qpm_lib.model.head import FixedHead
from qpm_lib.model.qpm import DinoQPM
from qpm_lib.plotting.canvas import Canvas, framed, place_in_words, to_jpeg


@pytest.fixture(scope="module")
def folder(tmp_path_factory, untrained, backbone):
    path = tmp_path_factory.mktemp("explorer") / "model"
    untrained[0].save(path, backbone=backbone.fingerprint)
    return path


@pytest.fixture
def explorer(folder, toy, toy_store, backbone):
    return explore(DinoQPM.load(folder).with_backbone(backbone), toy, store=toy_store)


def shown(widget):
    return np.asarray(Image.open(io.BytesIO(widget.value))).astype(int)


def test_what_is_seen_first(explorer, toy):
    assert explorer.row == toy.test_rows[0]
    assert shown(explorer.picture).shape == (448, 448, 3)
    assert np.ptp(shown(explorer.picture), axis=2).max() > 60
    assert f"truth <b>{toy.class_names[toy.labels[explorer.row]]}</b>" in explorer.words.value
    assert explorer.message.value == ""
    assert shown(explorer.strip).shape == (128, 128 * 6, 3)


def test_bars_add_up_to_the_score(explorer):
    added = [float(bar.value.rsplit("<span>", 1)[1].split("<")[0]) for bar in explorer.bars]
    score = float(explorer.total.value.split()[1])
    constant = float(explorer.model.head.constants[explorer.target])
    assert f"{constant:.2f}" in explorer.total.value
    assert sum(added) + constant == pytest.approx(score, abs=0.016)
    assert score == pytest.approx(float(explorer.seen.logits[explorer.target]), abs=0.006)


def test_features_are_switched_off_and_on(explorer):
    everything = shown(explorer.picture)
    for switch in explorer.switches:
        switch.value = False
    plain = shown(explorer.picture)
    reference = np.asarray(explorer.seen.square.resize((448, 448), Image.Resampling.BILINEAR)).astype(int)
    assert np.abs(plain - reference).mean() < 4
    assert "Features shown: none" in explorer.words.value
    explorer.switches[0].value = True
    one = shown(explorer.picture)
    assert np.abs(one - plain).mean() > 4
    assert explorer.switches[0].description in explorer.words.value
    explorer.switches[1].value = True
    np.testing.assert_array_equal(shown(explorer.picture), everything)


def test_opacity_and_threshold(explorer):
    before = np.ptp(shown(explorer.picture), axis=2).sum()
    explorer.threshold.value = 0.9
    assert np.ptp(shown(explorer.picture), axis=2).sum() < before
    explorer.threshold.value, explorer.opacity.value = 0, 0.2
    assert np.ptp(shown(explorer.picture), axis=2).sum() < before


def test_choosing_pictures(explorer, toy):
    explorer.which_class.value = 2
    assert toy.labels[explorer.row] == 2
    rows = toy.test_rows[toy.labels[toy.test_rows] == 2]
    explorer.opens[1].click()
    assert explorer.row == rows[1]
    explorer.surprise.click()
    assert explorer.row in rows
    explorer.which_class.value = -1
    assert explorer.later.disabled is False
    explorer.later.click()
    explorer.opens[0].click()
    assert explorer.row == toy.test_rows[8]
    assert explorer.opens[5].layout.visibility == "hidden"
    explorer.earlier.click()
    assert explorer.earlier.disabled


def test_later_stops_at_the_last_page(explorer):
    for _ in range(30):
        explorer._on()  # a click that comes before the button is switched off
    last = (len(explorer._found) - 1) % PER_PAGE
    assert explorer.thumbs[last].layout.visibility == "visible"
    assert explorer.later.disabled
    explorer.opens[last].click()
    assert explorer.row == int(explorer.store.rows(train=False)[-1])


def test_only_mistakes(explorer, toy):
    explorer.mistakes.value = True
    assert explorer.seen.truth != int(explorer.seen.logits.argmax()) or "No test picture fits" in explorer.message.value
    wrong = [b for b in explorer.opens if b.layout.visibility == "visible"]
    assert all(b.description.endswith("wrong") for b in wrong)
    explorer._predicted = explorer._labels.copy()
    explorer.mistakes.value = False
    explorer.mistakes.value = True
    assert "No test picture fits" in explorer.message.value
    explorer.surprise.click()
    assert "No test picture fits" in explorer.message.value
    explorer.mistakes.value = False
    assert explorer.message.value == ""


def test_another_class(explorer, toy):
    explorer.explained.value = (explorer.target + 1) % 4
    assert explorer.target == explorer.explained.value
    used = {explorer.names[f] for f in np.flatnonzero(explorer.weight[explorer.target])}
    assert {s.description for s in explorer.switches} == used
    for other in range(4):
        explorer.other.value = other
        text = explorer.comparison.value
        if other == explorer.target:
            assert "Choose another class" in text
            continue
        difference = explorer.seen.logits[explorer.target] - explorer.seen.logits[other]
        assert f"is {abs(difference):.2f} {'above' if difference >= 0 else 'below'} {toy.class_names[other]}" in text


@pytest.fixture
def copied(folder, toy, toy_store, backbone, tmp_path):
    """A way to open explorers of one copied model folder."""
    copy = shutil.copytree(folder, tmp_path / "model")
    return lambda: explore(DinoQPM.load(copy).with_backbone(backbone), toy, store=toy_store)


def test_features_get_names_that_stay(copied):
    explorer = copied()
    f = explorer.used()[0]
    explorer.switches[1].value = False
    explorer.feature.value = f
    explorer.name.value = "  long <b>beak "
    assert (f"{f}: long <b>beak", f) in explorer.feature.options
    assert explorer.switches[0].description == "long <b>beak"
    assert not explorer.switches[1].value  # a name changes nothing else
    assert "long <b>beak" in explorer.strip.text
    for name in (" ", "n" * 61):
        explorer.name.value = name
        assert "needs a name of 1 to 60 characters" in explorer.message.value
        assert explorer.name.value == "long <b>beak"
    explorer.save.click()
    assert "saved" in explorer.saved.value
    again = copied()
    assert again.names[f] == "long <b>beak"
    assert "long &lt;b&gt;beak" in again.words.value


def test_two_explorers_keep_each_others_names(copied):
    first, second = copied(), copied()
    for explorer, f, name in ((first, 0, "eye"), (second, 1, "tail"), (first, 2, "wing")):
        explorer.feature.value = f
        explorer.name.value = name
        explorer.save.click()
    assert copied().names[:3] == ["eye", "tail", "wing"]


def test_one_patch(explorer):
    f = int(np.flatnonzero(explorer.weight[explorer.target])[0])
    row, column = np.unravel_index(np.abs(explorer.seen.maps[f]).argmax(), (16, 16))
    explorer.column.value, explorer.line.value = int(column), int(row)
    assert f"{explorer.names[f]}: 100 % of its maximum" in explorer.firing.value
    before = shown(explorer.picture)
    explorer.mark.value = True
    changed = np.abs(shown(explorer.picture) - before).max(2) > 60
    y, x = np.nonzero(changed)
    assert abs(y.mean() / 28 - row - 0.5) < 0.6
    assert abs(x.mean() / 28 - column - 0.5) < 0.6
    explorer.mark.value = False
    np.testing.assert_array_equal(shown(explorer.picture), before)


def clicked(picture, x, y):
    """What the browser sends when a picture is clicked."""
    picture._handle_custom_msg({"x": x, "y": y}, [])


@pytest.mark.parametrize(
    ("x", "y", "column", "row"), [(0.5, 0.26, 8, 4), (0, 1, 0, 15), (1, 0, 15, 0), (-0.01, 1.01, 0, 15)]
)
def test_a_click_picks_a_patch(explorer, x, y, column, row):
    drawn = []
    explorer.picture.observe(lambda change: drawn.append(change), names="value")
    before = explorer.firing.value
    clicked(explorer.picture, x, y)
    assert (explorer.column.value, explorer.line.value, explorer.mark.value) == (column, row, True)
    assert len(drawn) == 1  # not once for each control that is set
    assert explorer.tabs.titles[explorer.tabs.selected_index] == "one patch"
    assert explorer.firing.value != before


def test_a_click_on_a_small_picture_opens_it(explorer):
    clicked(explorer.thumbs[3], 0.5, 0.5)
    assert explorer.row == int(explorer.store.rows(train=False)[3])


def test_a_part_is_taken_away(explorer):
    before = explorer.seen
    target = explorer.target
    explorer.without.value = "crown"
    assert "without crown" in explorer.words.value
    assert explorer.target == target
    assert np.abs(np.asarray(explorer.seen.square).astype(int) - np.asarray(before.square)).max() > 15
    explorer.without.value = "nothing"
    assert "without" not in explorer.words.value
    np.testing.assert_allclose(explorer.seen.values, before.values, atol=0.05)


def upload(explorer, image, name="mine.png", kind="PNG", note=""):
    """What the browser sends for a chosen file; `image` may be bytes of anything."""
    content = image
    if isinstance(image, Image.Image):
        image.save(buffer := io.BytesIO(), kind)
        content = buffer.getvalue()
    explorer.upload._handle_custom_msg({"name": name, "note": note, "problem": ""}, [memoryview(content)])


def test_your_own_picture(explorer, toy):
    upload(explorer, toy.image(0).resize((300, 200)))
    assert explorer.row is None
    assert "mine.png: predicted" in explorer.words.value
    assert "truth" not in explorer.words.value
    explorer.without.value = "beak"
    assert "cannot be drawn again" in explorer.message.value
    explorer.opens[0].click()
    assert explorer.message.value == ""


def test_bad_uploads_leave_the_picture_as_it_was(explorer):
    before = explorer.words.value
    for content, name, message in (
        (b"", "empty.png", "empty.png cannot be read"),
        (b"no picture", "a.txt", "a.txt cannot be read"),
        (Image.new("1", (9000, 6000)), "huge.png", "huge.png has 54 million pixels"),
    ):
        upload(explorer, content, name)
        assert message in explorer.message.value
        assert explorer.words.value == before
    explorer.upload._handle_custom_msg({"name": "a.tif", "note": "", "problem": "a.tif has 9 MB"}, [])
    assert "a.tif has 9 MB" in explorer.message.value
    explorer.opens[1].click()
    assert explorer.words.value != before


def test_a_picture_made_smaller_says_so(explorer, toy):
    upload(explorer, toy.image(1), note="mine.png <b> was made smaller")
    assert "mine.png &lt;b&gt; was made smaller" in explorer.message.value
    assert explorer.row is None


def test_a_data_set_that_does_not_fit(explorer, toy):
    with pytest.raises(ValueError, match="not the same"):
        explore(explorer.model, replace(toy, class_names=("a", "b", "c", "d")))


def test_without_scenes_nothing_is_drawn_again(folder, toy, toy_store, backbone, tmp_path):
    for name in toy.files:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).symlink_to(toy.root / name)
    photographs = replace(toy, root=tmp_path, masks=None)
    explorer = explore(DinoQPM.load(folder).with_backbone(backbone), photographs, store=toy_store)
    assert explorer.without not in explorer.children[1].children
    assert "predicted" in explorer.words.value


def with_classes(model, names, backbone):
    """The same adapter with other classes: each has two of the four features."""
    rng = np.random.default_rng(0)
    weight = np.array([rng.permutation([1.0, 1.0, 0.0, 0.0]) for _ in names], np.float32)
    head = FixedHead(
        torch.as_tensor(weight), torch.zeros(len(names)), mean=model.head.mean.data, std=model.head.std.data
    )
    return DinoQPM(model.adapter, head, features=model.features, class_names=names).eval().with_backbone(backbone)


def test_one_class(untrained, toy, backbone):
    rows = np.flatnonzero(toy.labels == 0)
    files = tuple(toy.files[row] for row in rows)
    one = ImageDataset(
        root=toy.root,
        files=files,
        labels=toy.labels[rows],
        is_train=toy.is_train[rows],
        class_names=toy.class_names[:1],
    )
    explorer = explore(with_classes(untrained[0], one.class_names, backbone), one)
    assert "Choose another class" in explorer.comparison.value
    assert "right" in explorer.words.value
    explorer.mistakes.value = True
    assert "No test picture fits" in explorer.message.value
    explorer.surprise.click()
    assert "No test picture fits" in explorer.message.value
    explorer.mistakes.value = False
    explorer.surprise.click()
    assert explorer.message.value == ""


class Repeated(FeatureStore):
    """The 36 toy pictures over and over, with other labels."""

    def __init__(self, store, dataset):
        self.__dict__.update(store.__dict__)
        self.store, self.labels, self.is_train = (
            store,
            torch.as_tensor(dataset.labels),
            torch.as_tensor(dataset.is_train),
        )

    def batches(self, rows, batch_size, **options):
        for chunk in rows.split(batch_size):
            for part in self.store.batches(chunk % 36, len(chunk)):
                yield part._replace(labels=self.labels[chunk])


def test_a_thousand_classes(untrained, toy, toy_store, backbone):
    names = tuple(f"class {i}" for i in range(1000))
    files, labels = tuple(toy.files[i % 36] for i in range(2000)), np.arange(2000) // 2
    many = ImageDataset(root=toy.root, files=files, labels=labels, is_train=np.arange(2000) % 2 == 0, class_names=names)
    explorer = explore(with_classes(untrained[0], names, backbone), many, store=Repeated(toy_store, many))
    assert len(explorer.explained.options) == 1000
    explorer.explained.value = 999
    explorer.other.value = 998
    assert "class 998" in explorer.comparison.value
    assert "and " in explorer.users.value
    assert "more" in explorer.users.value
    explorer.which_class.value = 500
    assert explorer.row == 1001
    assert "class 500" in explorer.words.value
    assert explorer.message.value == ""


def test_a_message_of_an_inner_step_stays(explorer, monkeypatch):
    def broken(*arguments, **options):
        raise RuntimeError("no memory left")

    with monkeypatch.context() as patch:
        patch.setattr(Canvas, "blend", broken)
        explorer.explained.value = 1
        assert "no memory left" in explorer.message.value
    explorer.opacity.value = 0.5
    assert explorer.message.value == ""


def test_every_picture_has_a_text(explorer, toy):
    assert explorer.picture.text.startswith(f"picture {explorer.row}, predicted")
    assert toy.class_names[0] in explorer.thumbs[0].text
    assert "feature 0" in explorer.strip.text


def test_a_thousand_changes_need_no_more_memory(explorer):
    import tracemalloc

    for value in np.linspace(0, 0.5, 20):
        explorer.threshold.value = float(value)
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    for i in range(150):
        explorer.threshold.value = 0.01 + 0.005 * (i % 100)
    grown = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert grown < 2_000_000


# -- pictures


def test_each_pixel_has_the_colour_of_its_strongest_feature():
    maps = {0: np.zeros((2, 2)), 3: np.zeros((2, 2))}
    maps[0][0, 0], maps[3][1, 1] = 1.0, -1.0
    canvas = Canvas(Image.new("RGB", (64, 64), "grey"), maps, ["#ff0000", "#00ff00", "#00ff00", "#0000ff"], side=64)
    picture = canvas.blend([0, 3], opacity=1.0).astype(int)
    assert picture[4, 4].argmax() == 0
    assert picture[60, 60].argmax() == 2
    assert np.ptp(canvas.blend([0], opacity=1.0)[60, 60].astype(int)) == 0
    np.testing.assert_array_equal(canvas.blend([]), canvas.plain)
    assert to_jpeg(picture.astype(np.uint8))[:2] == b"\xff\xd8"


def test_places_and_frames():
    heat = np.zeros((9, 9))
    for (row, column), words in {
        (0, 0): "upper left",
        (4, 4): "in the centre",
        (8, 4): "lower centre",
        (4, 8): "middle right",
    }.items():
        heat[:] = 0
        heat[row, column] = -2.0
        assert place_in_words(heat) == words
    blank = np.full((64, 64, 3), 100, np.uint8)
    marked = framed(blank, 3, 0, 4)
    assert (marked[:16, 48:] != 100).any()
    assert (marked[16:] == 100).all()
    assert (marked[:, :48] == 100).all()


def test_another_method_takes_the_place_of_the_features(explorer, toy, monkeypatch):
    """The menu offers what is quick; the map is that of the class shown, and errors are told."""
    from qpm_lib.explain.registry import METHODS, make
    from qpm_lib.explain.target import Target

    titles = dict(explorer.method.options)
    assert list(titles.values())[0] == "features"
    assert "rise" not in titles.values()
    assert "random" not in titles.values()
    features, target = shown(explorer.picture), Target(explorer.model, explorer.model.backbone)
    for name in ("cdam", "rollout"):
        explorer.method.value = name
        heat = make(name, target)([explorer.seen.square], torch.tensor([explorer.target]))[0].numpy()
        heat = heat if METHODS[name].signed else heat - heat.min()
        expected = Canvas(explorer.seen.square, {0: heat.clip(0), 1: (-heat).clip(0)}, ["#D55E00", "#0072B2"])
        np.testing.assert_allclose(shown(explorer.picture), expected.blend([0, 1]), atol=40)  # JPEG
        assert np.abs(shown(explorer.picture) - expected.blend([0, 1])).mean() < 3
        assert f"map of {METHODS[name].title} for {toy.class_names[explorer.target]}" in explorer.words.value
    before = shown(explorer.picture)
    explorer.method.value = "cdam"
    first = shown(explorer.picture)
    explorer.explained.value = (explorer.target + 1) % 4
    assert np.abs(shown(explorer.picture) - first).max() > 20  # CDAM knows the class
    explorer.method.value = "rollout"
    assert np.abs(shown(explorer.picture) - before).max() < 5  # rollout does not
    explorer.surprise.click()
    explorer.method.value = "features"
    assert "none, but the map" not in explorer.words.value
    assert shown(explorer.picture).shape == features.shape


def test_a_method_that_fails_says_so_and_the_explorer_lives_on(explorer, monkeypatch):
    def broken(*_):
        raise RuntimeError("no memory for gradients")

    with monkeypatch.context() as patch:
        patch.setattr("qpm_lib.explain.cdam.CDAM.maps", broken)
        explorer.method.value = "cdam"
        assert "no memory for gradients" in explorer.message.value
    explorer.method.value = "features"
    assert explorer.message.value == ""


def test_clusters_of_the_encoder_and_their_number(explorer):
    """No class is involved; a slider merges what was clustered once."""
    assert explorer.granularity.layout.display == "none"
    explorer.method.value = "clusters"
    assert explorer.granularity.layout.display is None
    assert "of 8 clusters here" in explorer.words.value
    seen = {}
    for k in (2, 8, 20):
        explorer.granularity.value = k
        seen[k] = shown(explorer.picture)
        assert f"of {k} clusters here" in explorer.words.value
    assert np.abs(seen[2] - seen[20]).mean() > 3
    explorer.explained.value = (explorer.target + 1) % 4
    assert np.abs(shown(explorer.picture) - seen[20]).max() < 5
    fitted = explorer._others._clusters
    explorer.surprise.click()
    assert explorer._others._clusters is fitted
    explorer.opacity.value = 0
    np.testing.assert_allclose(shown(explorer.picture), np.asarray(explorer.seen.square.resize((448, 448), 2)), atol=40)
    explorer.opacity.value = 0.8
    explorer.method.value = "features"
    assert explorer.granularity.layout.display == "none"


def test_a_slider_for_the_confidence_prunes_the_tree(folder, toy, toy_store, backbone):
    model = DinoQPM.load(folder).with_backbone(backbone)
    sets = calibrate(model, toy_store, toy_store.rows(train=True), split="published")
    explorer = explore(model, toy, store=toy_store, sets=sets)
    promise = explorer.promise
    assert explorer.tabs.titles[-1] == "how sure"
    vector, logits = strengths(model, toy_store, torch.as_tensor(toy.test_rows))
    pictures = {}
    for position, row in enumerate(toy.test_rows.tolist()):
        explorer.show_row(row)
        for confidence in promise.confidence.options:
            promise.confidence.value = confidence
            inside = sets.predict(vector, logits, 1 - confidence)[position]
            named = re.search("<b>(.*)</b>", promise.possible.value).group(1).split(" or ")
            assert sorted(named) == sorted(toy.class_names[c] for c in inside.nonzero()[:, 0])
            assert (shown(promise.tree) < 100).any()
            pictures[row, len(named)] = promise.tree.value
    grown = [row for row in toy.test_rows.tolist() if sum(r == row for r, _ in pictures) > 1]
    assert grown
    for row in grown:
        drawn = [picture for (r, _), picture in pictures.items() if r == row]
        assert len(set(drawn)) == len(drawn)
    assert "<b>no class</b> (nothing like it" in said("possible", 0.9, [], [], 1, None)
    few = HierarchicalSets(model.class_weight.detach(), split="published").fit(
        vector[[0, 0]], logits[[0, 0]], torch.tensor([0, 1])
    )
    with pytest.raises(ValueError, match="2 calibration pictures support no confidence"):
        explore(model, toy, store=toy_store, sets=few)
