"""Curves: a training, a solve, a trade-off. They take an Axes and return it."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from qpm_lib.plotting.colours import PALETTE
from qpm_lib.plotting.figures import new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def training_curves(ax: "Axes", history: Sequence, *, label: str = "") -> "Axes":
    """Weighted loss terms per epoch, and training accuracy on a second axis."""
    epochs = [record.epoch for record in history]
    for (name, style), colour in zip(
        dict.fromkeys(history[0].terms, "-").items(), PALETTE[3:] + PALETTE[:3], strict=False
    ):
        ax.plot(epochs, [record.terms[name] for record in history], style, color=colour, label=name.replace("_", " "))
    ax.set(xlabel="epoch", ylabel="loss term (weighted)", title=label)
    right = ax.twinx()
    right.plot(epochs, [record.accuracy for record in history], ":", color="black", label="training accuracy")
    right.set(ylabel="training accuracy", ylim=(0, 1.02))
    handles = ax.get_lines() + right.get_lines()
    ax.legend(
        handles,
        [h.get_label() for h in handles],
        fontsize=8,
        loc="center left",
        bbox_to_anchor=(1.0, 0.5),
        borderaxespad=6.5,
    )
    return ax


def solve_progress(ax: "Axes", history: Sequence) -> "Axes":
    """Best objective and proven bound of a solve over time (`selection.Progress`); the band between them is what is not
    yet known.
    """
    seconds = np.array([news.seconds for news in history])
    objective, bound = (np.array([getattr(news, name) for news in history]) for name in ("objective", "bound"))
    ax.fill_between(seconds, objective, bound, step="post", color=PALETTE[0], alpha=0.2, linewidth=0)
    ax.step(seconds, bound, where="post", color="black", linestyle="--", label="proven bound")
    ax.step(seconds, objective, where="post", color=PALETTE[0], label="best selection")
    for stage in dict.fromkeys(news.stage for news in history):
        start = next(news.seconds for news in history if news.stage == stage)
        ax.axvline(start, color="grey", linewidth=0.5)
        ax.annotate(
            f" {stage}", (start, 0.02), xycoords=("data", "axes fraction"), rotation=90, fontsize=7, color="grey"
        )
    span = max(objective[-1] - objective[0], 0.05 * abs(objective[-1]))
    ax.set(xlabel="seconds", ylabel="objective", ylim=(objective[-1] - 1.5 * span, objective[-1] + 3 * span))
    ax.set_title(f"gap {100 * history[-1].gap:.3f} % after {seconds[-1]:.1f} s", fontsize=10)
    ax.legend(fontsize=8, loc="upper right")
    return ax


class LiveSolve:
    """Give it to `selection.solve` as `on_progress`: keeps the history and, in a notebook, redraws it while the solver
    works.

    Parameters
    ----------
    every : seconds between two drawings. show : draw at all.
    """

    def __init__(self, every: float = 1.0, *, show: bool = True) -> None:
        self.every, self.show, self.history, self._handle, self._drawn = every, show, [], None, -np.inf

    def __call__(self, progress: object) -> None:
        """Take in a `selection.Progress`."""
        self.history.append(progress)
        if self.show and progress.seconds - self._drawn >= self.every:
            self._drawn = progress.seconds
            self._draw()

    def _draw(self) -> None:
        from IPython.display import display

        figure = new_figure((7, 3))
        solve_progress(figure.subplots(), self.history)
        if self._handle is None:
            self._handle = display(figure, display_id=True)
        else:
            self._handle.update(figure)

    def finish(self, ax: "Axes") -> "Axes":
        """Draw the whole history for good; the live picture goes away."""
        if self._handle is not None:
            from IPython.display import HTML

            self._handle.update(HTML(""))
        return solve_progress(ax, self.history)


def trade_off_curve(ax: "Axes", points: Sequence, name: str) -> "Axes":
    """Accuracy, plausibility, SID and contrastiveness against `n_features` or `n_per_class` (`qpm_lib.trade_off`),
    with their intervals.
    """
    points = sorted(points, key=lambda p: getattr(p, name))
    x = [getattr(p, name) for p in points]
    measures = {
        "accuracy": "accuracy",
        "plausibility": "plausibility",
        "sid": "SID@k",
        "contrastiveness": "contrastiveness",
    }
    for j, (measure, title) in enumerate(measures.items()):
        values = [p.evaluation.values[measure] for p in points]
        if None in values or (measure == "sid" and name == "n_per_class"):  # SID@k is another measure for another k
            continue
        ends = np.array([p.evaluation.intervals.get(measure, (v, v)) for p, v in zip(points, values, strict=True)])
        spread = np.abs(ends.T - values) * 100
        ax.errorbar(x, 100 * np.array(values), yerr=spread, fmt="o-", capsize=2, color=PALETTE[j], label=title)
    ax.set(xlabel={"n_features": "features in all (n)", "n_per_class": "features per class (k)"}[name], xticks=x)
    ax.grid(axis="y", alpha=0.3)
    ax.legend(fontsize=8)
    return ax


def trade_off_curves(axes: Sequence["Axes"], points: Sequence, n_features: int, n_per_class: int) -> Sequence["Axes"]:
    """Two panels: points with `n_per_class` features per class against n, and those with `n_features` against k."""
    trade_off_curve(axes[0], [p for p in points if p.n_per_class == n_per_class], "n_features")
    trade_off_curve(axes[1], [p for p in points if p.n_features == n_features], "n_per_class")
    axes[0].set_ylabel("%")
    return axes
