"""One picture and its reasons: the maps of the features over it, and the bars that add up to the score."""

from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image

from qpm_lib.data import ImageDataset, load_scenes
from qpm_lib.explain import METHODS
from qpm_lib.explorer.callbacks import set_quietly, told
from qpm_lib.explorer.controls import SIDE, read_upload
from qpm_lib.explorer.other_maps import CLUSTERS, FEATURES, OtherMaps
from qpm_lib.explorer.picker import Picker
from qpm_lib.explorer.words import bar_html, said, words_html
from qpm_lib.features import FeatureStore
from qpm_lib.model import DinoQPM, Output, outputs_of
from qpm_lib.plotting import Canvas, feature_colours, framed, place_in_words, to_jpeg


class Seen(NamedTuple):
    """What the model saw in one picture: the square, maps (n, g, g), normalised features (n,), logits (C,),
    the true class if known.
    """

    square: Image.Image
    maps: Float[np.ndarray, "n g g"]
    values: Float[np.ndarray, "n"]
    logits: Float[np.ndarray, "classes"]
    truth: int | None
    title: str


def _scenes(dataset: ImageDataset) -> Any:
    """What draws the pictures of a data set again; None where they are not rendered."""
    try:
        return load_scenes(dataset.root)
    except (ValueError, OSError):
        return None


class Reasons(Picker):
    """A picture with the explanation of one class.

    Attributes
    ----------
    row : row of the data set that is shown, None for an uploaded picture. target : class whose explanation is shown.
    seen : what the model saw. names : of the features, as they are shown.
    """

    def __init__(self, model: DinoQPM, dataset: ImageDataset, store: FeatureStore) -> None:
        self.weight = model.class_weight.detach().cpu().numpy()
        self.colours, self.names = feature_colours(self.weight), list(model.feature_names)
        self.row: int | None = None
        self.target = 0
        self._canvas: Canvas | None = None
        self._scenes = _scenes(dataset)
        self._others = OtherMaps(model, dataset)
        super().__init__(model, dataset, store, can_redraw=self._scenes is not None)
        self.method.options = self._others.options

    # -- which picture

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

    @told
    def _uploaded(self, name: str, content: bytes, note: str) -> None:
        self.show_image(read_upload(name, content), name)
        self.message.value = said("note", note) if note else ""

    @told
    def _refuse(self, why: str) -> None:
        raise ValueError(why)

    @told
    def _redraw(self, *_: Any) -> None:
        if self.row is None:
            self._as_it_is(None)
            raise ValueError("An uploaded picture cannot be drawn again: choose one of the data set.")
        parts = () if self.without.value == "nothing" else (self.without.value,)
        image = Image.fromarray(self._scenes.render(self.dataset, self.row, without=parts).image)
        out, target = self.model.output([image]), self.target
        title = f"picture {self.row}" + (f" without {parts[0]}" if parts else "")
        self._take(out, image, int(self.store.labels[self.row]), title, target=target)

    # -- its explanation

    def _take(
        self, out: Output, image: Image.Image, truth: int | None, title: str, *, target: int | None = None
    ) -> None:
        values = self.model.head.strength(out.vector.float())[0].detach().cpu().numpy()
        maps, logits = out.maps[0].detach().float().cpu().numpy(), out.logits[0].detach().cpu().numpy()
        self.seen = Seen(self.model.backbone.square(image), maps, values, logits, truth, title)
        self.target = int(np.argmax(logits)) if target is None else target
        set_quietly(self.explained, self.target, self._explain)
        self._new_picture()
        self._show_target()

    def _new_picture(self) -> None:
        """For the layer above: what else follows the picture."""

    @told
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
        constant, score = float(self.model.head.constants[self.target]), float(self.seen.logits[self.target])
        self.total.value = f"score {score:.2f} = sum of the bars and the constant of the class, {constant:.2f}"
        self._blend()

    def _name_switches(self) -> None:
        for f, switch in zip(self.used(), self.switches, strict=False):
            switch.description = switch.tooltip = self.names[f]

    def _drawn(self) -> tuple[np.ndarray, list[tuple[str, str]]]:
        """The picture with its maps, and where they are strongest, in words: those of the features that are switched
        on, or that of another method.
        """
        levels = {"opacity": self.opacity.value, "threshold": self.threshold.value}
        if self.method.value == FEATURES:
            on = [f for f, switch in zip(self.used(), self.switches, strict=False) if switch.value]
            return self._canvas.blend(on, **levels), [(self.names[f], place_in_words(self.seen.maps[f])) for f in on]
        if self.method.value == CLUSTERS:
            k = self.granularity.value
            pixels, labels = self._others.segmented(self.seen.square, k, self.opacity.value)
            here = len(np.unique(labels))
            return pixels, [("none; the encoder sees", f"{here} of {k} clusters here")]
        canvas, heat = self._others.canvas(self.method.value, self.seen.square, self.target)
        title = (
            f"none; map of {METHODS[self.method.value].title} for {self.dataset.class_names[self.target]}, strongest"
        )
        return canvas.blend([0, 1], **levels), [(title, place_in_words(heat.clip(0)))]

    @told
    def _blend(self, *_: Any) -> None:
        self.granularity.layout.display = None if self.method.value == CLUSTERS else "none"
        pixels, places = self._drawn()
        if self.mark.value:
            pixels = framed(pixels, self.column.value, self.line.value, self.store.grid)
        self.picture.value = to_jpeg(pixels)
        names, seen = self.dataset.class_names, self.seen
        predicted = int(seen.logits.argmax())
        self.picture.text = f"{seen.title}, predicted {names[predicted]}"
        truth = None if seen.truth is None else names[seen.truth]
        self.words.value = words_html(seen.title, names[predicted], float(seen.logits[predicted]), truth, places)
