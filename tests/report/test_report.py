"""Snapshots, and the pages made from them: against the model, brute force, and names that try to be HTML."""

import json
import re
import shutil
from dataclasses import fields, replace
from html.parser import HTMLParser
from itertools import pairwise, permutations

import numpy as np
import pytest
import torch
from PIL import Image

from qpm_lib.core.profiles import load_profile
from qpm_lib.data.pictures import read_image
from qpm_lib.model.calibrated import calibrate, strengths, supported_confidences
from qpm_lib.model.head import FixedHead
from qpm_lib.model.outputs import outputs_of
from qpm_lib.model.qpm import DinoQPM
from qpm_lib.report.build import build_report, model_pages
from qpm_lib.report.drawings import matrix, shared_tree
from qpm_lib.report.explorer_page import explorer_page
from qpm_lib.report.features import decided_by
from qpm_lib.report.mistakes import mistakes_page
from qpm_lib.report.pages import Page, whole_page
from qpm_lib.report.view import ModelView
from qpm_lib.runs.folder import RunFolder
from qpm_lib.runs.snapshot import Snapshot, choose_pictures, take_snapshot

EVIL = '<script>alert("x")</script>'


@pytest.fixture(scope="module")
def model(untrained, backbone):
    return untrained[0].with_backbone(backbone)


@pytest.fixture(scope="module")
def taken(model, toy, toy_store, tmp_path_factory):
    folder = tmp_path_factory.mktemp("snapshot")
    return take_snapshot(model, toy, toy_store, folder, made_by="here"), folder


@pytest.fixture
def view(model, taken, tmp_path):
    shutil.copytree(taken[1] / "pictures", tmp_path / "pictures")
    return ModelView(model, taken[0], tmp_path)


def numbers(text):
    return [float(v) for v in re.findall(r"<b>([+-]\d+\.\d+)</b>", text)]


# -- snapshots


def test_a_snapshot_is_what_the_model_says(taken, model, toy, toy_store):
    snapshot, folder = taken
    tests = toy_store.rows(train=False)
    out = outputs_of(model, toy_store, tests)
    np.testing.assert_array_equal(snapshot.predicted, out.logits.argmax(1))
    np.testing.assert_array_equal(snapshot.labels, toy.labels[toy.test_rows])
    np.testing.assert_array_equal(snapshot.rows, tests[snapshot.kept])
    assert sorted(snapshot.rows) == sorted(set(snapshot.rows.tolist()))
    values = model.head.strength(out.vector).detach().numpy()
    np.testing.assert_allclose(snapshot.values, values[snapshot.kept], rtol=1e-5)
    for c in range(4):
        mine = snapshot.labels == c
        usual = values[mine & (snapshot.predicted == c)] if (mine & (snapshot.predicted == c)).any() else values[mine]
        np.testing.assert_allclose(snapshot.typical[c], np.median(usual, 0), rtol=1e-5)
        for position in np.flatnonzero(snapshot.labels[snapshot.kept] == c):
            lower = [(usual[:, f] < snapshot.values[position, f]).sum() / len(usual) for f in range(4)]
            np.testing.assert_allclose(snapshot.below[position], lower, rtol=1e-5)
    for position in (0, len(snapshot.rows) - 1):
        wanted = out.maps[snapshot.kept[position]].abs().numpy()
        np.testing.assert_allclose(snapshot.heat(position), wanted, atol=float(wanted.max()) / 250)
        picture = np.asarray(read_image(folder / "pictures" / f"{snapshot.rows[position]}.jpg"), float)
        original = np.asarray(toy.image(int(snapshot.rows[position])).resize(picture.shape[:2]), float)
        assert np.abs(picture - original).mean() < 8
    again = Snapshot.load(folder)
    for field in fields(Snapshot):
        np.testing.assert_array_equal(getattr(again, field.name), getattr(snapshot, field.name))


def test_mistakes_come_first_and_then_every_class_in_turn():
    labels = np.repeat([0, 1, 2], 10)
    predicted = labels.copy()
    predicted[[3, 14, 25, 26]] = [1, 2, 0, 0]
    margin = np.zeros(30)
    margin[[3, 14, 25, 26]] = [0.5, 2.0, 1.0, 0.1]
    distance = np.arange(30.0)[::-1]
    kept = choose_pictures(labels, predicted, margin, distance, count=12, rng=np.random.default_rng(0))
    assert kept[:3].tolist() == [14, 25, 3]  # the three surest: a quarter of twelve
    right = kept[3:]
    assert (predicted[right] == labels[right]).all()
    assert np.bincount(labels[right]).tolist() == [3, 3, 3]
    assert [right[labels[right] == c][0] for c in range(3)] == [9, 19, 29]  # the nearest to what is typical
    assert len(set(kept.tolist())) == 12
    few = choose_pictures(labels, predicted, margin, distance, count=2, rng=np.random.default_rng(0))
    assert len(few) == 2
    everything = choose_pictures(labels, predicted, margin, distance, count=1000, rng=np.random.default_rng(0))
    assert sorted(everything.tolist()) == list(range(30))


@pytest.mark.parametrize("count", [240, 200, 400])
def test_every_class_keeps_a_picture_that_stands_for_it(count):
    rng = np.random.default_rng(1)
    labels = np.repeat(np.arange(200), 29)
    predicted = np.where(rng.random(len(labels)) < 0.12, rng.integers(0, 200, len(labels)), labels)
    kept = choose_pictures(labels, predicted, rng.random(len(labels)), rng.random(len(labels)), count=count, rng=rng)
    assert len(set(kept.tolist())) == count
    assert set(labels[kept][labels[kept] == predicted[kept]]) == set(range(200))
    assert (labels[kept] != predicted[kept]).sum() == min(count // 4, count - 200)


def test_fewer_pictures_are_kept_where_maps_are_large(model, toy, toy_store, tmp_path, monkeypatch):
    monkeypatch.setattr("qpm_lib.runs.snapshot._MAP_BYTES", 5 * 4 * toy_store.grid**2)
    assert len(take_snapshot(model, toy, toy_store, tmp_path).rows) == 5
    assert len(list((tmp_path / "pictures").iterdir())) == 5


@pytest.mark.parametrize("damage", ["missing", "picture", "cut", "other"])
def test_a_damaged_snapshot_is_refused(taken, tmp_path, damage):
    folder = tmp_path / "snapshot"
    shutil.copytree(taken[1], folder)
    if damage == "missing":
        (folder / "snapshot.json").unlink()
    elif damage == "picture":
        next((folder / "pictures").iterdir()).unlink()
    else:
        path = folder / "snapshot.safetensors"
        path.write_bytes(path.read_bytes()[:100] if damage == "cut" else (8).to_bytes(8, "little") + b"{}      ")
    with pytest.raises(ValueError, match=r"run chapter 07 (first|again)"):
        Snapshot.load(folder)


# -- drawings


def leaves(branch):
    return [branch.of_class] if branch.of_class is not None else [c for inner in branch.branches for c in leaves(inner)]


@pytest.mark.parametrize("seed", range(6))
def test_a_branch_lists_what_all_its_classes_share(seed):
    rng = np.random.default_rng(seed)
    weight = (rng.random((12, 8)) < 0.4) * rng.choice([1.0, -1.0], (12, 8))
    sets = [{(f, int(weight[c, f])) for f in np.flatnonzero(weight[c])} for c in range(12)]

    def check(branch, above):
        assert branch.features == frozenset.intersection(*(frozenset(sets[c]) for c in leaves(branch)))
        if branch.of_class is None:
            assert above is None or above < branch.features
            assert len(branch.branches) >= 2
        for inner in branch.branches:
            check(inner, branch.features)

    root = shared_tree(weight)
    assert sorted(leaves(root)) == list(range(12))
    check(root, None)


def test_twins_hang_on_one_branch():
    weight = np.zeros((4, 6))
    for c, features in enumerate([(0, 1, 2), (0, 1, 3), (3, 4, 5), (2, 4, 5)]):
        weight[c, list(features)] = 1
    root = shared_tree(weight)
    assert not root.features
    assert {(tuple(sorted(leaves(b))), tuple(sorted(b.features))) for b in root.branches} == {
        ((0, 1), ((0, 1), (1, 1))),
        ((2, 3), ((4, 1), (5, 1))),
    }
    assert shared_tree(weight[:1]).of_class == 0


def test_every_weight_is_a_square():
    weight = np.array([[1, 0, 0, -0.5], [0, 2, 0, 0.1], [1, 1, 0, 0]])
    svg = matrix(weight, ["a", EVIL, "c" * 80], ["x", "y", "z", EVIL], ["#111111"] * 4)
    assert svg.count("<rect") == 6
    assert svg.count('fill="#fff" stroke="#111111"') == 1
    assert "<script" not in svg
    assert "c" * 41 not in re.sub("<title>.*?</title>", "", svg)
    assert all(f'href="class_{c:03d}.html"' in svg for c in range(3))
    assert all(f'href="feature_{f:02d}.html"' in svg for f in range(4))


# -- pages


def test_reasons_add_up_to_the_lead(view):
    snapshot = view.snapshot
    text = mistakes_page(view).body
    wrong = np.flatnonzero(snapshot.labels[snapshot.kept] != snapshot.predicted[snapshot.kept])
    sections = text.split("<section")[1:]
    assert len(sections) == len(wrong) > 0
    for section in sections:
        lead = float(re.search(r"leads by (\d+\.\d+)", section).group(1))
        rest = re.search(r"the constants of the two classes: ([+-]\d+\.\d+)", section)
        assert sum(numbers(section)) + (float(rest.group(1)) if rest else 0) == pytest.approx(lead, abs=0.03)
        path = re.search(r'src="(strips/[^"]+)"', section).group(1)
        with Image.open(view.folder / path) as strip:
            assert strip.size == (405, 135)
    total = sum(int(v) for v in re.findall(r"<td>(\d+)</td>", text))
    assert total == (snapshot.labels != snapshot.predicted).sum()


def test_what_moved_the_lead_adds_up_too(view):
    snapshot, weight = view.snapshot, view.weight
    sections = mistakes_page(view).body.split("<section")[1:]
    for position, section in enumerate(sections):
        truth, answer = snapshot.labels[snapshot.kept[position]], snapshot.predicted[snapshot.kept[position]]
        lead = float(re.search(r"leads by (\d+\.\d+)", section).group(1))
        words, size = re.search(r"(the truth|even then the answer) would lead by (\d+\.\d+)", section).groups()
        constants = view.constants[answer] - view.constants[truth]
        usually = (weight[answer] - weight[truth]) @ snapshot.typical[truth] + constants
        assert float(size) * (-1 if words == "the truth" else 1) == pytest.approx(usually, abs=0.006)
        moved = [
            added - float(v)
            for added, v in zip(numbers(section), re.findall(r"usually ([+-]\d+\.\d+)", section), strict=True)
        ]
        assert sum(moved) == pytest.approx(lead - usually, abs=0.03)
        assert all(later <= earlier + 0.021 for earlier, later in pairwise(moved))


def test_mistakes_say_what_would_have_been_said_with_a_promise(view, model, toy, toy_store):
    """The smallest confidence at which the truth is named, found without the page's own search."""
    assert 'class="doubt"' not in mistakes_page(view).body
    rows, snapshot = toy_store.rows(train=True), view.snapshot
    view.sets = calibrate(model, toy_store, rows, split="published")
    vector, logits = strengths(model, toy_store, torch.as_tensor(snapshot.rows))
    sections, named = mistakes_page(view).body.split("<section")[1:], 0
    for position, section in enumerate(sections):
        inside = {
            confidence: view.sets.predict(vector, logits, 1 - confidence)[position].numpy()
            for confidence in supported_confidences(view.sets)
        }
        truth = snapshot.labels[snapshot.kept[position]]
        fits = [confidence for confidence, classes in inside.items() if classes[truth]]
        confidence = float(re.search(r"a confidence of (0\.\d+)", section).group(1))
        assert confidence == (min(fits) if fits else max(inside))
        words = re.search(r'<p class="doubt">(.*?)</p>', section).group(1)
        assert ("it would have said" in words) == bool(fits)
        if fits:
            linked = {int(c) for c in re.findall(r"class_(\d+)\.html", words)}
            assert linked == set(np.flatnonzero(inside[confidence]).tolist())
            named += 1
    assert named


def test_a_run_without_mistakes_says_so(view):
    view.snapshot = replace(view.snapshot, predicted=view.snapshot.labels)
    assert "None: all 12 test pictures" in mistakes_page(view).body


def test_a_feature_decides_between_classes_that_share_the_rest(view):
    used = view.used
    for f in range(used.shape[1]):
        wanted = {
            (a, b)
            for a, b in permutations(range(len(used)), 2)
            if used[a, f] and not used[b, f] and used[a].sum() == used[b].sum() == (used[a] & used[b]).sum() + 1
        }
        assert set(decided_by(view, f)) == wanted
        assert wanted


@pytest.fixture
def signed(model, taken, tmp_path):
    """Pages of a baseline: real weights, some of them negative, and biases; a class without features,
    a feature without a class.
    """
    weight = np.array([[1, 1, 0.5, 0], [1, -1, 0.5, 0], [-2, 0, 0, 0], [0, 0, 0, 0]], np.float32)
    head = FixedHead(
        torch.as_tensor(weight), torch.tensor([0.0, 0.5, 0, 1.5]), mean=model.head.mean.data, std=model.head.std.data
    )
    other = DinoQPM(model.adapter, head, features=model.features, class_names=("a", "b", "c", "d")).eval()
    shutil.copytree(taken[1] / "pictures", tmp_path / "pictures")
    predicted = (taken[0].values @ weight.T + head.constants.numpy()).argmax(1)
    kept = np.arange(len(predicted))
    snapshot = replace(taken[0], labels=taken[0].labels[taken[0].kept], predicted=predicted, kept=kept)
    return ModelView(other, snapshot, tmp_path)


def test_pages_of_a_baseline_tell_for_from_against(signed):
    made = model_pages(signed)
    assert "Where it decides" not in "".join(page.body for page in made.values())  # weights and biases decide, too
    classes = made["classes.html"].body
    assert "A class is its features and how much each counts, and its bias." in classes
    assert "hollow square" in classes
    first = made["class_000.html"].body
    near = re.search(r"Nearest classes</h2>(.*?)</ul>", first, re.DOTALL).group(1)
    assert " ".join(re.sub("<[^>]+>", "", near).split()).startswith(
        "b shares 2. Only here: feature 1; only there: feature 1 (against)."
    )
    assert "no features and the bias +1.50" in made["class_003.html"].body
    assert "<p>No class has it.</p>" in made["feature_03.html"].body
    assert "feature 0 (against)" in made["class_002.html"].body
    snapshot, text = signed.snapshot, made["mistakes.html"].body
    sections = text.split("<section")[1:]
    wrong = np.flatnonzero(snapshot.labels != snapshot.predicted)
    assert len(sections) == len(wrong) > 0
    for position, section in zip(wrong, sections, strict=True):
        scores = signed.weight @ snapshot.values[position] + signed.constants
        lead = scores[snapshot.predicted[position]] - scores[snapshot.labels[position]]
        rest = re.search(r"with different weights: ([+-]\d+\.\d+)", section)
        assert sum(numbers(section)) + (float(rest.group(1)) if rest else 0) == pytest.approx(lead, abs=0.03)
        pair = {int(snapshot.labels[position]), int(snapshot.predicted[position])}
        assert ("feature 0 (against)" in section) == (
            pair == {2, 3}
        )  # only c has it, against; a and b have it, too, with other weights
        assert rest  # constants differ in every pair of these classes


def test_pages_lead_to_each_other(view):
    made = model_pages(view)
    assert len(made) == 4 + 4 + 4
    for c in range(4):
        body = made[f"class_{c:03d}.html"].body
        links = set(re.findall(r'href="(feature_\d+\.html)"', body.split("<h2>")[0]))
        assert links == {f"feature_{f:02d}.html" for f in np.flatnonzero(view.used[c])}
        right = ((view.snapshot.labels == c) & (view.snapshot.predicted == c)).sum()
        assert f"{right} of 3 test pictures" in body
    for page in made.values():
        for target in re.findall(r'(?:href|src)="([^"#]+)', page.body):
            beside = target in ("explorer.css", "explorer.js") or (view.folder / target).exists()
            assert target in made or beside, target


class Structure(HTMLParser):
    """Tags with the names of their attributes, and all text."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.words = [], []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, *(name for name, _ in attrs)))

    def handle_data(self, data):
        self.words.append(data)


NASTY = [EVIL, "a'b onclick=x", '"><img src=x onerror=alert(1)>', "</script></title>&amp;{{ 7 * 7 }}/../" + "x" * 300]


def test_names_are_text_and_never_html(model, taken, tmp_path):
    """Pages with nasty names have the tags and attributes of pages with plain ones, and show the names as they are."""
    shutil.copytree(taken[1] / "pictures", tmp_path / "pictures")
    made = []
    for number, names in enumerate((["a", "b", "c", "d"], NASTY)):
        folder = tmp_path / f"model{number}"
        model.save(folder, backbone=model.backbone.fingerprint)
        card = json.loads((folder / "model.json").read_text())
        (folder / "model.json").write_text(json.dumps({**card, "class_names": names}))
        renamed = DinoQPM.load(folder)
        renamed.rename_features(names)
        made.append(model_pages(ModelView(renamed, taken[0], tmp_path)))
    for file, plain in made[0].items():
        nasty = Structure(made[1][file].body)
        assert nasty.tags == Structure(plain.body).tags, file
        links = [("index.html", name) for name in NASTY]
        assert Structure(whole_page(Page(NASTY[3], "<p>1</p>"), links)).tags.count(("a", "href")) == 4
        if file != "explorer.html":
            assert NASTY[0] in "".join(nasty.words) or file.startswith(("class_0", "feature_0", "mistakes"))
    data = json.loads(re.search(r'id="data">(.*?)</script>', made[1]["explorer.html"].body, re.DOTALL).group(1))
    assert data["classes"] == data["features"] == NASTY
    assert "49" not in made[1]["class_003.html"].title


def test_the_explorer_page_can_work_out_every_score(taken, model, toy_store):
    snapshot, text = taken[0], explorer_page(ModelView(model, taken[0], taken[1])).body
    data = json.loads(re.search(r'id="data">(.*?)</script>', text, re.DOTALL).group(1))
    assert [p["row"] for p in data["pictures"]] == sorted(snapshot.rows.tolist())
    for p in data["pictures"]:
        logits = outputs_of(model, toy_store, torch.tensor([p["row"]])).logits[0]
        scores = [sum(w * p["values"][f] for f, w in data["weight"][c]) + data["constants"][c] for c in range(4)]
        np.testing.assert_allclose(scores, logits.detach(), atol=1e-3)
        assert p["predicted"] == int(logits.argmax())


def test_a_report_without_a_model_is_an_index_and_chapters(tmp_path):
    run = RunFolder.create(tmp_path / "run", load_profile("smoke"))
    (tmp_path / "run" / "report").mkdir()
    (tmp_path / "run" / "report" / "stale.html").write_text("old")
    index = build_report(run)
    assert index == tmp_path / "run" / "report" / "index.html"
    names = {path.name for path in index.parent.iterdir()}
    assert "stale.html" not in names
    assert "explorer.html" not in names
    assert not (tmp_path / "run" / ".report").exists()
    assert "has not been run" in (index.parent / "07_saliency_explorer.html").read_text()


@pytest.mark.parametrize("kind", ["file", "link"])
def test_what_is_no_folder_is_not_overwritten(tmp_path, kind):
    run, place = RunFolder.create(tmp_path / "run", load_profile("smoke")), tmp_path / "run" / "report"
    if kind == "file":
        place.write_text("mine")
    else:
        place.symlink_to(tmp_path)
    with pytest.raises(ValueError, match="report is no folder"):
        build_report(run)
    assert place.is_symlink() if kind == "link" else place.read_text() == "mine"
    assert not (tmp_path / "run" / ".report").exists()


def test_one_class_is_enough(untrained, toy, tmp_path):
    whole, _ = untrained
    one = DinoQPM(
        whole.adapter,
        type(whole.head)(
            whole.head.weight[:1], whole.head.bias[:1], mean=whole.head.mean.data, std=whole.head.std.data
        ),
        features=whole.features,
        class_names=toy.class_names[:1],
    ).eval()
    snapshot = Snapshot(
        labels=np.zeros(3, int),
        predicted=np.zeros(3, int),
        typical=np.zeros((1, 4), np.float32),
        kept=np.array([0, 1]),
        rows=np.array([0, 1]),
        values=np.ones((2, 4), np.float32),
        below=np.ones((2, 4), np.float32),
        maps=np.full((2, 4, 5, 5), 9, np.uint8),
        peaks=np.ones((2, 4), np.float32),
    )
    (tmp_path / "pictures").mkdir()
    for row in (0, 1):
        toy.image(row).save(tmp_path / "pictures" / f"{row}.jpg")
    made = model_pages(ModelView(one, snapshot, tmp_path))
    assert "3 of 3" in made["class_000.html"].body
    assert "None: all 3" in made["mistakes.html"].body
    assert made["explorer.html"].title == "Explorer"


def test_clusters_of_the_encoder_have_a_page_and_a_slider(model, taken, backbone, toy, tmp_path):
    from qpm_lib.explain.inspection import inspect_pictures
    from qpm_lib.explain.nave import NAVE

    shutil.copytree(taken[1] / "pictures", tmp_path / "pictures")
    rows = taken[0].rows.tolist()
    images = [toy.image(row) for row in rows]
    found = inspect_pictures(NAVE(backbone).fit(images, finest=12), images, [str(row) for row in rows])
    pages = model_pages(ModelView(model, taken[0], tmp_path, clusters=found))
    body = pages["clusters.html"].body
    for source in re.findall(r'src="([^"]+)"', body):
        assert (tmp_path / source).exists()
        with Image.open(tmp_path / source) as picture:
            assert np.asarray(picture).std() > 5
    assert body.count("<tr>") == 11
    data = json.loads(re.search(r'id="data">(.*?)</script>', pages["explorer.html"].body, re.DOTALL)[1])
    assert data["clusters"]["grid"] == 16
    assert [len(set(colours)) for colours in data["clusters"]["colours"]] == list(range(2, 13))
    strange = replace(found, names=("1", *found.names[1:-1], "-5"))
    assert "clusters.html" not in model_pages(ModelView(model, taken[0], tmp_path, clusters=strange))
