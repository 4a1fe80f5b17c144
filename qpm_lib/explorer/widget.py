"""The saliency explorer: look at pictures, switch features on and off, compare classes, ask where a feature fires.

Layers of one widget, each using only those below: `controls`, `picker`, `reasons`, and here the questions to a picture.
Every callback turns an error into a sentence in the widget; no control is left dead.
"""

import functools
from typing import Any

import numpy as np
import torch

from qpm_lib.conformal import HierarchicalSets
from qpm_lib.data import ImageDataset
from qpm_lib.explain import compare_classes
from qpm_lib.explorer.callbacks import set_quietly, told
from qpm_lib.explorer.controls import feature_options
from qpm_lib.explorer.promise import Promise
from qpm_lib.explorer.reasons import Reasons
from qpm_lib.explorer.words import comparison_html, firing_html, users_html
from qpm_lib.features import FeatureStore
from qpm_lib.model import DinoQPM, most_activating, outputs_of
from qpm_lib.plotting import Canvas, to_jpeg

_EXAMPLES, _LONGEST_NAME = 6, 60


class Explorer(Reasons):
    """The explorer as a widget; made by `explore`. Controls are attributes (see `Controls`); `promise` is the tab of
    the sets, None without them.
    """

    def __init__(
        self, model: DinoQPM, dataset: ImageDataset, store: FeatureStore, sets: HierarchicalSets | None = None
    ) -> None:
        self._renamed: dict[int, str] = {}
        self._examples: np.ndarray | None = None
        super().__init__(model, dataset, store)
        self.promise = None
        if sets:
            self.promise = Promise(sets, model.class_names, self.names, self.colours)
            self.tabs.children = (*self.tabs.children, self.promise)
            self.tabs.set_title(len(self.tabs.children) - 1, "how sure")
        self._wire()
        self._filter()
        self._describe_feature()

    def _wire(self) -> None:
        for control, method in (
            (self.which_class, self._filter),
            (self.mistakes, self._filter),
            (self.without, self._redraw),
            (self.explained, self._explain),
            (self.method, self._blend),
            (self.granularity, self._blend),
            (self.opacity, self._blend),
            (self.threshold, self._blend),
            (self.other, self._compare),
            (self.feature, self._describe_feature),
            (self.name, self._rename),
            (self.column, self._look_at_patch),
            (self.line, self._look_at_patch),
            (self.mark, self._blend),
            *((switch, self._blend) for switch in self.switches),
        ):
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

    def _new_picture(self) -> None:
        """Compare with the runner-up; what is still possible."""
        best = np.argsort(-self.seen.logits, kind="stable")
        rival = next((int(c) for c in best if c != self.target), self.target)
        set_quietly(self.other, rival, self._compare)
        if self.promise:
            self.promise.show(self.seen.values, self.seen.logits)

    def _show_target(self) -> None:
        super()._show_target()
        self._compare()
        self._list_patch()

    @told
    def _compare(self, *_: Any) -> None:
        a, b = self.target, int(self.other.value)
        added = (self.weight[a] - self.weight[b]) * self.seen.values
        difference = float(self.seen.logits[a] - self.seen.logits[b])
        constants = float(self.model.head.constants[a] - self.model.head.constants[b])
        groups = compare_classes(self.model.class_weight, a, b)
        classes = (self.dataset.class_names[a], self.dataset.class_names[b])
        same = "<p>Choose another class to compare with.</p>"
        told_apart = (classes, groups, added, self.names, difference, constants)
        self.comparison.value = same if a == b else comparison_html(*told_apart)

    @told
    def _describe_feature(self, *_: Any) -> None:
        f = int(self.feature.value)
        set_quietly(self.name, self.names[f], self._rename)
        users = [self.dataset.class_names[c] for c in np.flatnonzero(self.weight[:, f])]
        self.users.value = users_html(users)
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

    @told
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

    @told
    def _save_names(self, *_: Any) -> None:
        self.model.rename_features(self._renamed)
        self.saved.value = '<span role="status">saved with the model</span>'

    @told
    def _point(self, x: float, y: float) -> None:
        """Which features fire where the picture was clicked; drawn once, when everything is set."""
        grid = self.store.grid
        self.tabs.selected_index = 2
        set_quietly(self.mark, True, self._blend)
        for control, share in ((self.column, x), (self.line, y)):
            set_quietly(control, min(grid - 1, max(0, int(share * grid))), self._look_at_patch)
        self._look_at_patch()

    @told
    def _look_at_patch(self, *_: Any) -> None:
        self._list_patch()
        if self.mark.value:
            self._blend()

    def _list_patch(self) -> None:
        place = self.line.value, self.column.value
        self.firing.value = firing_html(self.seen.maps, place, self.names, self.weight[self.target] != 0)


def explore(
    model: DinoQPM, dataset: ImageDataset, *, store: FeatureStore | None = None, sets: HierarchicalSets | None = None
) -> Explorer:
    """The explorer for a model and the data set it was trained on; show it as the last value of a cell.

    Parameters
    ----------
    store : features of the data set; None opens those in the cache, or extracts them. sets : what the model promises
        (`load_calibration`, chapter 13); they have a tab of their own, with a slider for the confidence.

    Raises
    ------
    ValueError : when the classes of model and data set differ, or the backbone cannot be loaded.
    """
    if tuple(model.class_names) != tuple(dataset.class_names):
        raise ValueError(
            f"the model knows {len(model.class_names)} classes, the data set {len(dataset.class_names)}, "
            "and they are not the same: "
            "take the data set that the model was trained on"
        )
    store = store or FeatureStore.extract(dataset, model.backbone).to(model.device)
    return Explorer(model, dataset, store, sets)
