"""The saliency explorer: look at pictures, switch features on and off, compare classes, ask where a feature fires.

Widgets and their wiring only: pictures are made in `render`, numbers in `model`. Every callback turns an error into a sentence in the
widget; no control is left dead.
"""

import functools
import html
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image

from qpm_lib.data import ImageDataset, load_scenes
from qpm_lib.explain import compare_classes
from qpm_lib.explorer.controls import PER_PAGE, SIDE, THUMB, Controls, feature_options, read_upload, set_quietly
from qpm_lib.explorer.words import bar_html, comparison_html, firing_html, words_html
from qpm_lib.features import FeatureStore
from qpm_lib.model import DinoQPM, most_activating, outputs, outputs_of
from qpm_lib.plotting import Canvas, feature_colours, framed, place_in_words, to_jpeg

_EXAMPLES, _LONGEST_NAME = 6, 60


class _Seen(NamedTuple):
    """What the model saw in one picture: the square, maps (n, g, g), normalised features (n,), logits (C,), the true class if known."""

    square: Image.Image
    maps: Float[np.ndarray, "n g g"]
    values: Float[np.ndarray, "n"]
    logits: Float[np.ndarray, "classes"]
    truth: int | None
    title: str


def _told(method: Callable) -> Callable:
    """A callback whose errors become a message in the widget."""

    @functools.wraps(method)
    def call(self: "Explorer", *arguments: Any) -> None:
        if self._answering:  # called by another callback, which tells
            method(self, *arguments)
            return
        self._answering, self.message.value = True, ""
        try:
            method(self, *arguments)
        except (ValueError, RuntimeError, OSError, MemoryError) as error:
            first = (str(error) or type(error).__name__).splitlines()[0]
            self.message.value = f'<p role="alert" style="color:#8a3b00">{html.escape(first)}</p>'
        finally:
            self._answering = False

    return call


class Explorer(Controls):
    """The explorer as a widget; made by `explore`. Controls are attributes (see `Controls`).

    Attributes
    ----------
    row : row of the data set that is shown, None for an uploaded picture. target : class whose explanation is shown.
    """

    def __init__(self, model: DinoQPM, dataset: ImageDataset, store: FeatureStore) -> None:
        self.model, self.dataset, self.store = model, dataset, store
        self.weight = model.class_weight.detach().cpu().numpy()
        self.colours, self.names = feature_colours(self.weight), list(model.feature_names)
        self._renamed: dict[int, str] = {}
        self.row: int | None = None
        self.target = 0
        self._canvas: Canvas | None = None
        self._answering = False
        self._examples: np.ndarray | None = None
        self._rows = store.rows(train=False)
        logits = [out.logits.argmax(1).cpu() for out, _ in outputs(model, store, self._rows)]
        self._predicted, self._labels = torch.cat(logits).numpy(), store.labels[self._rows].numpy()
        self._rng, self._page = np.random.default_rng(0), 0
        grid, can_redraw = store.grid, self._scenes() is not None
        super().__init__(dataset.class_names, self.names, per_class=model.n_per_class, grid=grid, can_redraw=can_redraw)
        self._wire()
        self._filter()
        self._describe_feature()

    def _wire(self) -> None:
        for control, method in (
            (self.which_class, self._filter), (self.mistakes, self._filter), (self.without, self._redraw),
            (self.explained, self._explain), (self.opacity, self._blend), (self.threshold, self._blend), (self.other, self._compare),
            (self.feature, self._describe_feature), (self.name, self._rename), (self.column, self._look_at_patch),
            (self.line, self._look_at_patch), (self.mark, self._blend), *((switch, self._blend) for switch in self.switches),
        ):  # fmt: skip
            control.observe(method, names="value")
        for button, method in (
            (self.surprise, self._surprise),
            (self.save, self._save_names),
            (self.earlier, self._back),
            (self.later, self._on),
        ):
            button.on_click(method)
        for position, button in enumerate(self.opens):
            button.on_click(functools.partial(self._open, position))
            self.thumbs[position].on_click(functools.partial(self._open, position))
        self.picture.on_click(self._point)
        self.upload.on_file(self._uploaded, self._refuse)

    # -- choosing a picture -----------------------------------------------------------------------------------------------------

    @_told
    def _filter(self, *_: Any) -> None:
        keep = np.ones(len(self._labels), bool)
        if self.which_class.value >= 0:
            keep &= self._labels == self.which_class.value
        if self.mistakes.value:
            keep &= self._labels != self._predicted
        self._found, self._page = np.flatnonzero(keep), 0
        self._show_page()
        if not len(self._found):
            raise ValueError("No test picture fits: choose another class, or switch off 'only mistakes'.")
        self.show_row(int(self._rows[self._found[0]]))

    def _show_page(self) -> None:
        here = self._found[self._page * PER_PAGE : (self._page + 1) * PER_PAGE]
        for position, (thumb, button) in enumerate(zip(self.thumbs, self.opens, strict=True)):
            shown = position < len(here)
            thumb.layout.visibility = button.layout.visibility = "visible" if shown else "hidden"
            if not shown:
                continue
            row = int(self._rows[here[position]])
            small = self.dataset.image(row).resize((THUMB, THUMB))
            right = self._labels[here[position]] == self._predicted[here[position]]
            thumb.value = to_jpeg(np.asarray(small))
            button.description = f"{row}" if right else f"{row} wrong"
            button.tooltip = thumb.text = (
                f"{self.dataset.class_names[self._labels[here[position]]]}: {'right' if right else 'wrong'}"
            )
        pages = -(-len(self._found) // PER_PAGE)
        self.earlier.disabled, self.later.disabled = self._page == 0, self._page >= pages - 1

    @_told
    def _back(self, *_: Any) -> None:
        self._page = max(0, self._page - 1)
        self._show_page()

    @_told
    def _on(self, *_: Any) -> None:
        self._page = min(self._page + 1, max(0, len(self._found) - 1) // PER_PAGE)
        self._show_page()

    @_told
    def _surprise(self, *_: Any) -> None:
        if not len(self._found):
            raise ValueError("No test picture fits: choose another class, or switch off 'only mistakes'.")
        self.show_row(int(self._rows[self._rng.choice(self._found)]))

    @_told
    def _open(self, position: int, *_: Any) -> None:
        self.show_row(int(self._rows[self._found[self._page * PER_PAGE + position]]))

    def show_row(self, row: int) -> None:
        """Show a picture of the data set."""
        out, image = outputs_of(self.model, self.store, torch.tensor([row])), self.dataset.image(row)
        self._as_it_is(row)
        self._take(out, image, int(self.store.labels[row]), f"picture {row}")

    def show_image(self, image: Image.Image, title: str) -> None:
        """Show any picture."""
        out = self.model.output([image])
        self._as_it_is(None)
        self._take(out, image, None, title)

    def _as_it_is(self, row: int | None) -> None:
        self.row = row
        set_quietly(self.without, "nothing", self._redraw)

    @_told
    def _uploaded(self, name: str, content: bytes, note: str) -> None:
        self.show_image(read_upload(name, content), name)
        self.message.value = f"<p>{html.escape(note)}</p>" if note else ""

    @_told
    def _refuse(self, why: str) -> None:
        raise ValueError(why)

    def _scenes(self) -> Any:
        try:
            return load_scenes(self.dataset.root)
        except (ValueError, OSError):
            return None

    @_told
    def _redraw(self, *_: Any) -> None:
        if self.row is None:
            self._as_it_is(None)
            raise ValueError("An uploaded picture cannot be drawn again: choose one of the data set.")
        parts = () if self.without.value == "nothing" else (self.without.value,)
        image = Image.fromarray(self._scenes().render(self.dataset, self.row, without=parts).image)
        out, target = self.model.output([image]), self.target
        title = f"picture {self.row}" + (f" without {parts[0]}" if parts else "")
        self._take(out, image, int(self.store.labels[self.row]), title, target=target)

    # -- the explanation --------------------------------------------------------------------------------------------------------

    def _take(self, out: Any, image: Image.Image, truth: int | None, title: str, *, target: int | None = None) -> None:
        values = self.model.head.normalise(out.vector.float())[0].detach().cpu().numpy()
        maps, logits = out.maps[0].detach().float().cpu().numpy(), out.logits[0].detach().cpu().numpy()
        self.seen = _Seen(self.model.backbone.square(image), maps, values, logits, truth, title)
        best = np.argsort(-logits, kind="stable")
        self.target = int(best[0]) if target is None else target
        rival = next((int(c) for c in best if c != self.target), self.target)
        set_quietly(self.explained, self.target, self._explain)
        set_quietly(self.other, rival, self._compare)
        self._show_target()

    @_told
    def _explain(self, *_: Any) -> None:
        self.target = int(self.explained.value)
        self._show_target()

    def used(self) -> list[int]:
        """Features of the class shown, the largest contribution first."""
        used = np.flatnonzero(self.weight[self.target])
        return used[np.argsort(-(self.weight[self.target] * self.seen.values)[used], kind="stable")].tolist()

    def _show_target(self) -> None:
        used, added = self.used(), self.weight[self.target] * self.seen.values
        self._canvas = Canvas(self.seen.square, {f: self.seen.maps[f] for f in used}, self.colours, side=SIDE)
        longest = float(max((abs(added[f]) for f in used), default=1.0)) or 1.0
        for position, (switch, bar) in enumerate(zip(self.switches, self.bars, strict=True)):
            visible = position < len(used)
            switch.layout.display = bar.layout.display = None if visible else "none"
            if visible:
                f = used[position]
                set_quietly(switch, True, self._blend)
                bar.value = bar_html(float(added[f]), longest, self.colours[f])
        self._name_switches()
        bias, score = float(self.model.head.bias[self.target]), float(self.seen.logits[self.target])
        self.total.value = f"score {score:.2f} = sum of the contributions" + (
            f" and the bias {bias:.2f}" if bias else ""
        )
        self._blend()
        self._compare()
        self._list_patch()

    def _name_switches(self) -> None:
        for f, switch in zip(self.used(), self.switches, strict=False):
            switch.description = switch.tooltip = self.names[f]

    @_told
    def _blend(self, *_: Any) -> None:
        on = [f for f, switch in zip(self.used(), self.switches, strict=False) if switch.value]
        pixels = self._canvas.blend(on, opacity=self.opacity.value, threshold=self.threshold.value)
        if self.mark.value:
            pixels = framed(pixels, self.column.value, self.line.value, self.store.grid)
        self.picture.value = to_jpeg(pixels)
        names, seen = self.dataset.class_names, self.seen
        predicted = int(seen.logits.argmax())
        places = [(self.names[f], place_in_words(self.seen.maps[f])) for f in on]
        self.picture.text = f"{seen.title}, predicted {names[predicted]}"
        truth = None if seen.truth is None else names[seen.truth]
        self.words.value = words_html(seen.title, names[predicted], float(seen.logits[predicted]), truth, places)

    # -- another class, one feature, one patch ----------------------------------------------------------------------------------

    @_told
    def _compare(self, *_: Any) -> None:
        a, b = self.target, int(self.other.value)
        added = (self.weight[a] - self.weight[b]) * self.seen.values
        difference = float(self.seen.logits[a] - self.seen.logits[b])
        groups = compare_classes(self.model.class_weight, a, b)
        classes = (self.dataset.class_names[a], self.dataset.class_names[b])
        same = "<p>Choose another class to compare with.</p>"
        self.comparison.value = same if a == b else comparison_html(classes, groups, added, self.names, difference)

    @_told
    def _describe_feature(self, *_: Any) -> None:
        f = int(self.feature.value)
        set_quietly(self.name, self.names[f], self._rename)
        users = [self.dataset.class_names[c] for c in np.flatnonzero(self.weight[:, f])]
        shown = ", ".join(map(html.escape, users[:12])) + (f" and {len(users) - 12} more" if len(users) > 12 else "")
        self.users.value = f"<p>Used by {len(users)} classes: {shown or 'none'}. Above: training pictures on which it is strongest.</p>"
        if self._examples is None:
            self._examples = most_activating(self.model, self.store, count=_EXAMPLES, train=True)
        maps = outputs_of(self.model, self.store, torch.as_tensor(self._examples[f])).maps[:, f].cpu().numpy()
        panels = []
        for row, heat in zip(self._examples[f].tolist(), maps, strict=True):
            panels.append(
                Canvas(self.model.backbone.square(self.dataset.image(row)), {f: heat}, self.colours, side=128).blend(
                    [f]
                )
            )
        self.strip.value, self.strip.text = to_jpeg(np.concatenate(panels, 1)), f"Where {self.names[f]} is strongest"

    @_told
    def _rename(self, *_: Any) -> None:
        f, name = int(self.feature.value), " ".join(self.name.value.split())
        if not 0 < len(name) <= _LONGEST_NAME:
            set_quietly(self.name, self.names[f], self._rename)
            raise ValueError(f"A feature needs a name of 1 to {_LONGEST_NAME} characters; this one has {len(name)}.")
        self.names[f] = self._renamed[f] = name
        self.feature.unobserve(self._describe_feature, names="value")
        self.feature.options = feature_options(self.names)
        self.feature.value = f
        self.feature.observe(self._describe_feature, names="value")
        self._name_switches()
        self.saved.value, self.strip.text = "", f"Where {name} is strongest"
        self._blend()
        self._compare()
        self._list_patch()

    @_told
    def _save_names(self, *_: Any) -> None:
        self.model.rename_features(self._renamed)
        self.saved.value = '<span role="status">saved with the model</span>'

    @_told
    def _point(self, x: float, y: float) -> None:
        """Which features fire where the picture was clicked."""
        grid = self.store.grid
        self.mark.value = True
        self.tabs.selected_index = 2
        self.column.value, self.line.value = (min(grid - 1, max(0, int(share * grid))) for share in (x, y))

    @_told
    def _look_at_patch(self, *_: Any) -> None:
        self._list_patch()
        if self.mark.value:
            self._blend()

    def _list_patch(self) -> None:
        place = self.line.value, self.column.value
        self.firing.value = firing_html(self.seen.maps, place, self.names, self.weight[self.target] != 0)


def explore(model: DinoQPM, dataset: ImageDataset, *, store: FeatureStore | None = None) -> Explorer:
    """The explorer for a model and the data set it was trained on; show it as the last value of a cell.

    Parameters
    ----------
    store : features of the data set; None opens those in the cache, or extracts them.

    Raises
    ------
    ValueError : when the classes of model and data set differ, or the backbone cannot be loaded.
    """
    if tuple(model.class_names) != tuple(dataset.class_names):
        raise ValueError(
            f"the model knows {len(model.class_names)} classes, the data set {len(dataset.class_names)}, and they are not the same: "
            "take the data set that the model was trained on"
        )
    store = store or FeatureStore.extract(dataset, model.backbone).to(model.device)
    return Explorer(model, dataset, store)
