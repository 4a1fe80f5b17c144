"""Comparisons: planted maps are ordered rightly, stopped ones go on, what is kept is what was measured."""

import copy
import json

import numpy as np
import pytest
import torch
from PIL import Image

from qpm_lib.comparison import comparing
from qpm_lib.comparison.case import EXACT, Case, open_cases
from qpm_lib.comparison.comparing import compare
from qpm_lib.comparison.kept import Kept
from qpm_lib.comparison.measures import MEASURES, chosen
from qpm_lib.comparison.result import Comparison
from qpm_lib.comparison.tables import agreement_rows, difference_rows, long_rows, score_rows, to_csv, to_markdown
from qpm_lib.core.profiles import load_profile
from qpm_lib.explain.base import Method
from qpm_lib.explain.target import Target
from qpm_lib.report.side_by_side import write_side_by_side
from qpm_lib.runs.folder import RunFolder

COUNT = 12


@pytest.fixture
def case(rigged, bright_models):
    """Patches of different brightness that do not see each other, and a model that likes brightness."""
    backbone = copy.deepcopy(rigged)
    for block in backbone.network.blocks:
        block.attn.proj.weight.data.zero_()
    shades = np.random.default_rng(2).integers(0, 255, (COUNT, 4, 4), dtype=np.uint8)
    images = [Image.fromarray(np.kron(one, np.ones((8, 8), np.uint8))).convert("RGB") for one in shades]
    target, labels = Target(bright_models["qpm"], backbone), torch.zeros(COUNT, dtype=torch.long)
    return Case("qpm", 0, target, np.arange(COUNT), images, labels, 1 - labels, ("bright", "dark"))


def worth(target, images):
    """What each patch is worth: the score without it, one at a time."""
    pixels, found = target.pixels(images), torch.zeros(len(images), 4, 4)
    for y, x in np.ndindex(4, 4):
        hole = pixels.clone()
        hole[:, :, 8 * y : 8 * y + 8, 8 * x : 8 * x + 8] = pixels.mean((2, 3), keepdim=True)
        found[:, y, x] = (target(pixels) - target(hole))[:, 0].detach()
    return found


def planted(share):
    """A method that knows the given share of the truth; -1 is the truth upside down."""

    class Planted(Method):
        calls = 0

        def some(self, images, targets):
            Planted.calls += 1
            true = worth(self.target, images)
            noise = torch.randn(true.shape, generator=torch.Generator().manual_seed(3)) * true.std()
            return share * true + (1 - abs(share)) * noise

    return Planted


LEVELS = {"upside down": -1.0, "noise": 0.0, "a third": 0.33, "truth": 1.0}


def test_every_measure_with_holes_orders_planted_maps(case):
    found = compare([case], methods=(), measures=("holes",), extra={n: planted(s) for n, s in LEVELS.items()})
    for measure in found.measures("qpm"):
        means = found.means("qpm", measure)
        values = [means[name].value for name in LEVELS]
        assert values[0] < values[1] < values[-1], measure
        assert values == sorted(values), measure
    assert "truth" in found.leaders("qpm", "holes_mean")
    assert "upside down" not in found.leaders("qpm", "holes_mean")
    pair = found.differences("qpm", "holes_mean", against="truth")["truth", "upside down"]
    assert pair.p < 0.01
    assert pair.low > 0


def test_a_second_call_measures_only_what_is_new(case, tmp_path, monkeypatch):
    monkeypatch.setenv("QPM_CACHE", str(tmp_path))
    names, taken = ("cdam", "random"), []
    first = compare([case], methods=names, measures=("holes_mean", "cost"), holes=4)
    for unit in comparing.units(case, chosen(None)):
        assert unit.on(COUNT, 4).max() == COUNT - 1
    measure = comparing._measure

    def watched(case, build, unit, entry, holes):
        before = dict(entry.arrays)
        measure(case, build, unit, entry, holes)
        taken.extend(
            k for k, v in entry.arrays.items() if k not in before or not np.array_equal(v, before[k], equal_nan=True)
        )

    monkeypatch.setattr(comparing, "_measure", watched)
    monkeypatch.setattr(comparing, "cost_of", lambda *_: pytest.fail("measured again"))
    second = compare([case], methods=names, measures=("holes_mean", "cost"), holes=4)
    assert taken == []
    for name in names:
        one, other = (f.scores["qpm", name]["holes_mean"] for f in (first, second))
        np.testing.assert_array_equal(one.values, other.values)
        assert one.there.sum() == 4
    third = compare([case], methods=names, measures=("holes_mean", "form"), holes=8)
    assert {"holes_mean", "compactness", "randomised"} <= set(taken)
    values = third.scores["qpm", "cdam"]["holes_mean"]
    old = first.scores["qpm", "cdam"]["holes_mean"]
    np.testing.assert_array_equal(values.values[old.there], old.values[old.there])
    assert values.there.sum() > 4


def test_a_stopped_comparison_goes_on_without_a_difference(case, monkeypatch):
    options = {"methods": ("cdam", "grad_cam", "random"), "measures": ("holes_mean", "box_sensitivity", "form")}
    take, count = comparing._measure, [0]

    def stops(*arguments):
        count[0] += 1
        if count[0] == 6:
            raise KeyboardInterrupt
        take(*arguments)

    monkeypatch.setattr(comparing, "_measure", stops)
    with pytest.raises(KeyboardInterrupt):
        compare([case], **options)
    monkeypatch.setattr(comparing, "_measure", take)
    went_on = compare([case], **options)
    case.key = "anew"  # nothing of it is in the cache
    anew = compare([case], **options)
    for pair, found in anew.scores.items():
        for name, scores in found.items():
            np.testing.assert_array_equal(scores.values, went_on.scores[pair][name].values)


def test_a_method_that_one_seed_lacks_is_compared_on_the_others(case, tmp_path, caplog):
    other = copy.copy(case)
    other.seed, other.target = 1, Target(copy.deepcopy(case.target.model), case.target.backbone)
    other.explainer = tmp_path  # there is none in it
    (tmp_path / "model.json").write_text("{}")
    names = ("cdam", "random")
    lacking = type("Lacking", (Case,), {"methods": lambda _: {"cdam": case.methods()["cdam"]}})
    second = lacking(**{f: getattr(other, f) for f in case.__dataclass_fields__})
    found = compare([case, second], methods=names, measures=("holes_mean",))
    assert found.seeds == {"qpm": (0, 1)}
    assert found.scores["qpm", "cdam"]["holes_mean"].there.all()
    assert found.scores["qpm", "random"]["holes_mean"].there.sum(1).tolist() == [COUNT, 0]
    alone = compare([case], methods=names, measures=("holes_mean",))
    pair = ("cdam", "random")
    assert found.differences("qpm", "holes_mean")[pair].value == alone.differences("qpm", "holes_mean")[pair].value
    assert "cdam" in other.methods()
    assert "ranking is left out" in caplog.text


def test_own_methods_are_measured_and_not_kept(case):
    own = planted(1.0)
    for _ in range(2):
        found = compare([case], methods=("random",), measures=("form", "cost"), extra={"mine": own})
    assert own.calls >= 4
    assert found.methods("qpm") == ["random", "mine"]
    assert found.methods("qpm", real=True) == ["mine"]
    assert found.costs["qpm", "mine"].seconds > 0


def test_what_is_saved_is_read_and_damage_is_named(case, tmp_path):
    found = compare(
        [case], methods=("cdam", "random", "centre", "grad_cam"), measures=("form", "holes_mean", "cost"), shown=2
    )
    found.save(tmp_path, made_by="x")
    again = Comparison.load(tmp_path)
    assert to_markdown(again) == to_markdown(found)
    assert (again.shown.told, again.costs) == (found.shown.told, found.costs)
    np.testing.assert_allclose(again.shown.maps["qpm", "cdam"], found.shown.maps["qpm", "cdam"])
    assert json.loads((tmp_path / "comparison.json").read_text())["made_by"] == "x"
    (tmp_path / "comparison.safetensors").write_bytes(b"damaged")
    with pytest.raises(ValueError, match="is damaged"):
        Comparison.load(tmp_path)
    with pytest.raises(ValueError, match="holds no comparison: run chapter 11 first"):
        Comparison.load(tmp_path / "nothing")


def test_tables_say_what_was_measured(case):
    extra = {n: planted(s) for n, s in LEVELS.items()}
    found = compare([case], methods=("random",), measures=("holes_mean", "compactness", "cost"), extra=extra)
    rows = score_rows(found, "qpm")
    assert rows[0] == ["method", "holes, mean colour", "compactness", "seconds", "in forward passes", "MB"]
    cells = {row[0]: row[1] for row in rows[1:]}
    assert cells["truth"].startswith("**")
    assert not cells["upside down"].startswith("**")
    assert not any(row[2].startswith("**") for row in rows)  # conditions are no race
    long = {(m, n): float(v) for _, _, n, m, v, *_ in long_rows(found)[1:]}
    assert long["holes_mean", "truth"] == pytest.approx(found.means("qpm", "holes_mean")["truth"].value, abs=1e-4)
    pairs = [row for row in difference_rows(found)[1:] if row[1] == "holes_mean"]
    assert len(pairs) == 5 * 4 / 2
    for _, _, better, worse, apart, *_ in pairs:
        assert long["holes_mean", better] >= long["holes_mean", worse]
        assert float(apart) == pytest.approx(long["holes_mean", better] - long["holes_mean", worse], abs=3e-4)
    assert agreement_rows(found, "qpm") == []  # nothing true is known of these pictures
    assert to_csv([["a", "b, c"]]) == 'a,"b, c"\n'


def test_a_page_shows_every_map_and_escapes_names(case, tmp_path):
    case.class_names = ("<script>alert(1)</script>", "dark")
    found = compare([case], methods=("random",), measures=("form",), extra={"<b>mine": planted(1.0)}, shown=2)
    text = write_side_by_side(found, tmp_path).read_text()
    assert "<b>mine" not in text
    assert "<script" not in text
    for number in range(2):
        picture = np.asarray(Image.open(tmp_path / "side_by_side" / f"qpm_{number}.jpg").convert("L"))
        assert picture.std() > 10
    assert 'src="side_by_side/qpm_0.jpg"' in text


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"measures": ("truths",)}, "unknown measure 'truths': choose from truth, holes, form, cost, correctness"),
        ({"methods": ("magic",)}, "unknown explanation method 'magic': choose from intrinsic"),
        ({"methods": ("ranking",)}, "no model allows method 'ranking': choose from intrinsic"),
    ],
)
def test_bad_names_are_refused(options, said, case):
    with pytest.raises(ValueError, match=said):
        compare([case], **options)
    with pytest.raises(ValueError, match="no model was given"):
        compare([])


def test_a_call_that_can_measure_nothing_stops_before_any_map_is_made(case):
    with pytest.raises(ValueError, match="none of these models and pictures allows correctness"):
        compare([case], measures=("truth",))


def test_what_gives_no_maps_and_names_that_are_taken_are_refused(case):
    def broken(value):
        return lambda _: lambda images, targets: torch.full((len(images), 4, 4), value)

    with pytest.raises(ValueError, match=r"mine gave maps .* with 384 values that are not finite"):
        compare([case], methods=(), measures=("form",), extra={"mine": broken(float("nan"))})
    with pytest.raises(ValueError, match=r"mine gave maps of shape \(24, 3\)"):
        compare([case], methods=(), measures=("form",), extra={"mine": lambda _: lambda images, t: torch.zeros(24, 3)})
    for name in ("cdam", "a/b", EXACT):
        with pytest.raises(ValueError, match="an own method cannot be called"):
            compare([case], measures=("form",), extra={name: broken(1.0)})
    flat = compare([case], methods=("random",), measures=("form",), extra={"flat": broken(1.0)})
    assert flat.means("qpm", "class_sensitivity")["flat"].value == 0  # shows nothing


def test_a_table_does_not_depend_on_what_was_measured_before(case):
    options = {"methods": ("cdam", "random"), "measures": ("holes_mean",)}
    small = compare([case], **options, holes=5)
    compare([case], methods=("cdam",), measures=("holes_mean",), holes=COUNT)
    again = compare([case], **options, holes=5)
    for name in options["methods"]:
        one, other = (found.scores["qpm", name]["holes_mean"].values for found in (small, again))
        np.testing.assert_array_equal(one, other)


def test_calls_side_by_side_keep_what_the_other_measured():
    one, other = Kept("side by side", "cdam"), Kept("side by side", "cdam")
    one.add({"a": np.arange(3)}, x=1)
    other.add({"b": np.arange(2)}, y=2)
    found = Kept("side by side", "cdam")
    assert set(found.arrays) == {"a", "b"}
    assert found.card == {"x": 1, "y": 2}
    found.path.write_bytes(b"damaged")
    assert Kept("side by side", "cdam").arrays == {}


def test_kinds_stand_for_their_measures():
    assert chosen(None) == (*MEASURES, "cost")
    assert chosen(("form", "holes_mean")) == ("holes_mean", "compactness", "class_sensitivity", "randomised")


def test_runs_that_do_not_belong_together_are_refused(tmp_path):
    one = RunFolder(tmp_path / "a", load_profile("smoke"))
    with pytest.raises(ValueError, match=r"no run has a model 'sldd': choose from linear_probe, dense, qpm"):
        open_cases([one], models=("sldd",))
    with pytest.raises(ValueError, match="0 runs and 200 pictures cannot be compared"):
        open_cases([])
    other = RunFolder(tmp_path / "b", load_profile("smoke", **{"backbone.depth": 4}))
    with pytest.raises(ValueError, match="differ in backbone"):
        open_cases([one, other], models=("linear_probe",), pictures=1)
    other = RunFolder(tmp_path / "b", load_profile("smoke", **{"dense.epochs": 7, "seed": 1}))
    with pytest.raises(ValueError, match="differ in more than seed and method"):
        open_cases([one, other], pictures=1)


@pytest.mark.chain
def test_the_exact_answer_is_the_ceiling_of_what_it_answers(smoke):
    run = RunFolder(smoke, load_profile("smoke"))
    cases = open_cases([run, run], pictures=2, workers=0)
    assert [case.model for case in cases] == ["linear_probe", "dense", "qpm"]  # the same run counts once
    found = compare(cases, methods=(EXACT, "random", "intrinsic"), measures=("truth",))
    for case in cases:
        for measure in ("correctness", "contrastivity"):
            if EXACT in (means := found.means(case.model, measure)):
                assert means[EXACT].value == pytest.approx(1)
    assert found.methods("dense") == ["random", EXACT]
    assert found.methods("qpm") == ["intrinsic", "random", EXACT]
