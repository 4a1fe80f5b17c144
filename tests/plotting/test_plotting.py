import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from conftest import GRID

from qpm_lib import plotting
from qpm_lib.plotting.course import course_figure
from qpm_lib.plotting.maps import upsample


def test_upsampling_keeps_the_place():
    maps = torch.zeros(1, GRID, GRID)
    maps[0, 1, 3] = 1.0
    big = upsample(maps, (64, 80))
    assert big.shape == (1, 64, 80)
    y, x = divmod(int(big[0].argmax()), 80)
    assert 16 <= y < 32
    assert 60 <= x < 80


# -- figures


def test_features_of_a_class_have_different_colours():
    rng = np.random.default_rng(0)
    weight = np.zeros((30, 24))
    for row in weight:
        row[rng.choice(24, 5, replace=False)] = 1
    colours = plotting.feature_colours(weight)
    same = sum(len({colours[f] for f in np.flatnonzero(row)}) < 5 for row in weight)
    assert same <= 12
    rng = np.random.default_rng(0)  # coloured in the order of their numbers, two of these classes repeat a colour
    mixed = np.stack([np.isin(np.arange(24), rng.choice(24, 5, replace=False)) for _ in range(24)])
    inks = plotting.feature_colours(mixed)
    assert all(len({inks[f] for f in np.flatnonzero(row)}) == 5 for row in mixed)
    assert len(set(plotting.feature_colours(np.ones((1, 10))))) == 10
    assert plotting.feature_colours(weight) == colours


def test_overlay_colours_the_place_and_leaves_the_rest_grey():
    image = np.full((32, 32, 3), 128, np.uint8)
    heat = np.zeros((4, 4))
    heat[0, 0] = 2.0
    picture = plotting.overlay(image, heat, "#D55E00")
    assert np.ptp(picture[31, 31]) < 1e-6
    assert picture[2, 2, 0] > picture[2, 2, 2] + 0.3
    np.testing.assert_allclose(
        plotting.overlay(image, np.zeros((4, 4)), "#D55E00"), plotting.overlay(image, np.zeros((4, 4)), "#0072B2")
    )
    weak = plotting.overlay(image, heat, "#D55E00", top=20.0)
    assert weak[2, 2, 0] - weak[2, 2, 2] < picture[2, 2, 0] - picture[2, 2, 2]


def test_combined_overlay_shows_the_strongest_feature():
    heat = np.zeros((2, 4, 4))
    heat[0, 0, 0], heat[1, 3, 3] = 1.0, 1.0
    picture = plotting.combined_overlay(np.full((32, 32, 3), 0.5), heat, ["#FF0000", "#0000FF"])
    assert picture[2, 2].argmax() == 0
    assert picture[29, 29].argmax() == 2
    assert np.ptp(plotting.combined_overlay(np.full((8, 8, 3), 0.5), heat * 0, ["#FF0000", "#0000FF"])) < 1e-6


def test_token_colours_tell_planted_patches_apart(planted):
    store, _ = planted
    colours = plotting.token_colours(store.fetch(torch.arange(8)).patches.numpy())
    assert colours.shape == (8, GRID, GRID, 3)
    background = colours[0, 1, 3]
    assert np.abs(colours[0, 0, 0] - background).sum() > 0.3


def test_ordering_puts_like_classes_side_by_side():
    weight = np.array([[1, 1, 0, 0], [0, 0, 1, 1], [1, 1, 0, 0], [0, 0, 1, 1]], float)
    classes, features = plotting.class_order(weight)
    assert abs(list(classes).index(0) - list(classes).index(2)) == 1
    assert sorted(features) == [0, 1, 2, 3]
    assert plotting.class_order(weight[:2])[0].tolist() == [0, 1]


def test_plots_return_their_axes(planted, trained):
    from qpm_lib.model.training import Epoch

    _, ax = plt.subplots()
    weight = trained[2].class_weight.numpy()
    colours = plotting.feature_colours(weight)
    assert plotting.show_images(ax, [np.zeros((8, 8, 3))] * 3, columns=2, titles=list("abc")) is ax
    assert plotting.class_feature_matrix(ax, weight, list("abcd"), colours) is ax
    assert plotting.confusion_matrix(ax, np.eye(4, dtype=int), list("abcd")) is ax
    assert plotting.training_curves(ax, [Epoch(1, 0.5, {"cross_entropy": 1.0, "diversity": -1.0})]) is ax
    assert plotting.bars_with_reference(ax, {"a": 0.5}, reference=0.2, reference_name="chance") is ax
    bars = plotting.contribution_bars(plt.subplots()[1], np.array([2.0, -1.0]), np.array([1, 3]), colours)
    assert [round(b.get_width(), 3) for b in bars.patches] == [-1.0, 2.0]
    assert bars.get_title() == "logit = 1.00"
    features = np.array([1, 3])
    bars = plotting.contribution_bars(plt.subplots()[1], np.array([2.0, 0.5]), features, colours, constant=-3.0)
    assert [round(b.get_width(), 3) for b in bars.patches] == [-3.0, 0.5, 2.0]
    assert [t.get_text() for t in bars.get_yticklabels()] == ["constant", "feature 3", "feature 1"]
    assert bars.get_title() == "logit = -0.50"


def test_a_solve_is_drawn_while_it_runs(monkeypatch):
    from qpm_lib import selection

    shown = []
    monkeypatch.setattr("IPython.display.display", lambda figure, display_id: shown.append(figure) or Handle())

    class Handle:
        def update(self, what):
            shown.append(what)

    a = selection.simulated_relevance(40, 8, seed=0)
    view = plotting.LiveSolve(every=0.0)
    found = selection.solve(
        a, selection.redundancy(a, 10, 0.2), n_features=10, n_per_class=3, gap=0.0, on_progress=view
    )
    assert len(shown) == len(view.history) >= 3
    ax = view.finish(plt.subplots()[1])
    best = next(line for line in ax.get_lines() if line.get_label() == "best selection")
    assert best.get_ydata()[-1] == view.history[-1].objective
    assert abs(view.history[-1].objective - found.objective) < 1e-6
    low, high = ax.get_ylim()
    assert low < found.objective < high
    assert f"{100 * found.gap:.3f} %" in ax.get_title()


def test_a_map_with_a_sign_has_two_colours_and_grey_between():
    heat = np.zeros((8, 8))
    heat[2, 2], heat[5, 5] = 4.0, -4.0
    drawn = plotting.signed_overlay(np.full((64, 64, 3), 0.5), heat)
    above, below, zero = drawn[20, 20], drawn[44, 44], drawn[4, 60]
    assert above[0] > above[2] + 0.3  # orange
    assert below[2] > below[0] + 0.2  # blue
    assert np.ptp(zero) < 1e-6
    weak = heat * np.where(heat < 0, 0.25, 1)
    assert np.ptp(plotting.signed_overlay(np.full((64, 64, 3), 0.5), weak)[44, 44]) < np.ptp(below)  # one scale


def test_one_wild_patch_does_not_decide_the_scale():
    heat = np.ones((40, 40))
    heat[0, 0] = 1e6
    drawn = plotting.signed_overlay(np.full((80, 80, 3), 0.5), heat)
    calm = plotting.signed_overlay(np.full((80, 80, 3), 0.5), np.ones((40, 40)))
    np.testing.assert_allclose(drawn[40:, 40:], calm[40:, 40:], atol=0.05)


def test_maps_in_a_row_are_drawn_by_their_sign():
    _, ax = plt.subplots()
    heat = np.zeros((4, 4))
    heat[1, 1] = 1
    picture = np.full((32, 32, 3), 0.5)
    assert plotting.show_maps(ax, picture, {"up": heat + 3, "both": heat - 0.5}, caption="why") is ax
    assert [text.get_text() for text in ax.texts] == ["picture", "up", "both"]
    sheet = ax.images[0].get_array()
    one = plotting.overlay(picture, heat, plotting.PALETTE[3])  # from its smallest value on
    np.testing.assert_allclose(sheet[-32:, 36:68], one)
    np.testing.assert_allclose(sheet[-32:, 72:104], plotting.signed_overlay(picture, heat - 0.5))


def test_a_table_of_skills_names_what_is_missing():
    _, ax = plt.subplots()
    table = {"CDAM": [(0.5, 0.4, 0.6), None], "random": [(-0.01, -0.1, 0.1), (0.9, 0.8, 1.0)]}
    assert plotting.skill_table(ax, table, ("correctness", "contrastivity"), title="probe") is ax
    assert [text.get_text() for text in ax.texts] == [
        "0.50 [0.40, 0.60]",
        "n/a",
        "-0.01 [-0.10, 0.10]",
        "0.90 [0.80, 1.00]",
    ]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["CDAM", "random"]


@pytest.mark.parametrize(("chapter", "blue"), [(1, 1), (4, 4), (7, 5), (12, 1), (13, 5)])
def test_the_picture_of_the_course_marks_one_chapter_and_what_it_stands_on(chapter, blue):
    from matplotlib.colors import to_hex

    faces = [to_hex(patch.get_facecolor()) for patch in course_figure(chapter).axes[0].patches]
    assert [q for q, face in enumerate(faces) if face == "#0072b2"] == [chapter]
    assert faces.count("#cfe3f1") == blue
    with pytest.raises(ValueError, match=r"chapter \(=14\) must be 1 to 13"):
        plotting.you_are_here(14)
    assert np.asarray(plotting.you_are_here(chapter)).std() > 10


def test_a_line_goes_around_what_is_marked_and_hides_nothing_else():
    picture = np.random.default_rng(0).integers(1, 255, (64, 64, 3), dtype=np.uint8)
    marked = np.zeros((8, 8), bool)
    marked[2:4, 3] = marked[7, 0] = True
    found = plotting.outlined(picture, marked)
    changed = (found != picture / 255).any(2)
    assert not changed[18:30, 26:30].any()  # inside
    assert not changed[:14].any()
    assert {tuple(ink) for ink in found[changed].round(3)} == {(0, 0, 0), (1, 1, 1)}
    assert changed[16, 24:32].all()
    assert changed[56, :8].all()
    assert not changed[63, 3:5].any()  # a mark at the border is open there


def test_a_tree_numbers_the_features_of_what_is_possible():
    paths = np.array([[4, 1, 3], [4, 1, 2], [0, 5, -1]])
    figure, ax = plt.subplots()
    plotting.class_tree(ax, paths, ["a", "b", "c"], [*plotting.PALETTE], predicted=0, level=2, members=[0, 1])
    words = [text.get_text() for text in ax.texts]
    plt.close(figure)
    assert sorted(word for word in words if word.isdigit()) == ["0", "1", "2", "3", "4"]
    assert {text.get_text() for text in ax.texts if text.get_weight() == "bold"} == {"a", "b"}
