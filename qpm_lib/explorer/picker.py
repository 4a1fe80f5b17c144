"""Choosing a picture: by class, only mistakes, page by page, by surprise."""

from typing import Any

import numpy as np
import torch

from qpm_lib.data import ImageDataset
from qpm_lib.explorer.callbacks import told
from qpm_lib.explorer.controls import PER_PAGE, THUMB, Controls
from qpm_lib.features import FeatureStore
from qpm_lib.model import DinoQPM, outputs
from qpm_lib.plotting import to_jpeg


class Picker(Controls):
    """The test pictures of a data set with the answers of a model; `show_row` is left to the layer above."""

    def __init__(self, model: DinoQPM, dataset: ImageDataset, store: FeatureStore, *, can_redraw: bool) -> None:
        self.model, self.dataset, self.store = model, dataset, store
        self._rows = store.rows(train=False)
        logits = [out.logits.argmax(1).cpu() for out, _ in outputs(model, store, self._rows)]
        self._predicted, self._labels = torch.cat(logits).numpy(), store.labels[self._rows].numpy()
        self._rng, self._page = np.random.default_rng(0), 0
        sizes = {"per_class": model.n_per_class, "grid": store.grid}
        super().__init__(dataset.class_names, model.feature_names, **sizes, can_redraw=can_redraw)

    def show_row(self, row: int) -> None:
        """Show a picture of the data set."""
        raise NotImplementedError

    @told
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

    @told
    def _back(self, *_: Any) -> None:
        self._page = max(0, self._page - 1)
        self._show_page()

    @told
    def _on(self, *_: Any) -> None:
        self._page = min(self._page + 1, max(0, len(self._found) - 1) // PER_PAGE)
        self._show_page()

    @told
    def _surprise(self, *_: Any) -> None:
        if not len(self._found):
            raise ValueError("No test picture fits: choose another class, or switch off 'only mistakes'.")
        self.show_row(int(self._rows[self._rng.choice(self._found)]))

    @told
    def _open(self, position: int, *_: Any) -> None:
        self.show_row(int(self._rows[self._found[self._page * PER_PAGE + position]]))
