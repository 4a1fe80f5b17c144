"""Figures of the chapters. Plot functions take an Axes and return it; picture functions return RGB arrays in 0 to 1.

Every feature has one fixed colour. Colours come from a palette that colour-blind people can tell apart (Okabe and Ito, extended with
three of Tol's), and features used together by a class get different ones; numbers are always written beside them.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, to_rgb

PALETTE = ("#E69F00", "#56B4E9", "#009E73", "#D55E00", "#CC79A7", "#0072B2", "#F0E442", "#882255", "#44AA99", "#332288")
Image = Float[np.ndarray, "h w 3"] | UInt8[np.ndarray, "h w 3"]


def feature_colours(weight: Bool[np.ndarray, "classes n"] | Float[np.ndarray, "classes n"]) -> list[str]:
    """One colour per feature; two features of the same class share a colour only when the palette is exhausted."""
    used = np.asarray(weight) != 0
    together = (used.T.astype(int) @ used) > 0
    colours: list[int] = []
    for f in range(used.shape[1]):
        taken = [colours[g] for g in range(f) if together[f, g]]
        cost = [(taken.count(c), colours.count(c), c) for c in range(len(PALETTE))]
        colours.append(min(cost)[2])
    return [PALETTE[c] for c in colours]


def _as_float(image: Image) -> Float[np.ndarray, "h w 3"]:
    array = np.asarray(image)
    return array / 255.0 if array.dtype == np.uint8 else array.astype(float)


def _upsampled(heat: Float[np.ndarray, "g g"], size: tuple[int, int]) -> Float[np.ndarray, "h w"]:
    import torch

    from qpm_lib.explain.base import upsample

    return upsample(torch.as_tensor(np.ascontiguousarray(heat))[None], size)[0].numpy()


def overlay(image: Image, heat: Float[np.ndarray, "g g"], colour: str, *, top: float | None = None) -> Float[np.ndarray, "h w 3"]:
    """A map over its picture: the picture in pale grey, the map from white to `colour`, bilinear.

    Parameters
    ----------
    top : value that gets the full colour; None takes the map's own maximum (per-map scaling). A map of zeros stays grey.
    """
    grey = _as_float(image) @ np.array([0.299, 0.587, 0.114])
    grey = 0.35 + 0.6 * grey[..., None]
    high = float(heat.max()) if top is None else top
    strength = np.clip(_upsampled(heat, grey.shape[:2]) / high, 0, 1)[..., None] if high > 0 else np.zeros_like(grey)
    return grey * (1 - strength) + strength * (0.25 * grey + 0.75 * np.array(to_rgb(colour)))


def combined_overlay(image: Image, maps: Float[np.ndarray, "k g g"], colours: Sequence[str]) -> Float[np.ndarray, "h w 3"]:
    """All maps of a class in one picture: each pixel shows its strongest feature, scaled by the strongest value of all of them."""
    grey = _as_float(image) @ np.array([0.299, 0.587, 0.114])
    grey = 0.35 + 0.6 * grey[..., None]
    big = np.stack([_upsampled(m, grey.shape[:2]) for m in maps])
    if big.max() <= 0:
        return np.repeat(grey, 3, axis=2)
    strength = np.clip(big.max(0) / big.max(), 0, 1)[..., None] ** 0.7
    ink = np.array([to_rgb(c) for c in colours])[big.argmax(0)]
    return grey * (1 - strength) + strength * (0.2 * grey + 0.8 * ink)


def token_colours(patches: Float[np.ndarray, "images patches dim"]) -> Float[np.ndarray, "images g g 3"]:
    """First three principal components of patch tokens as red, green and blue, on common axes for all pictures (2 to 98 % range)."""
    flat = patches.reshape(-1, patches.shape[-1]).astype(float)
    centred = flat - flat.mean(0)
    _, _, axes = np.linalg.svd(centred[:: max(1, len(centred) // 4000)], full_matrices=False)
    points = centred @ axes[:3].T
    low, high = np.percentile(points, [2, 98], axis=0)
    grid = round(patches.shape[1] ** 0.5)
    return np.clip((points - low) / (high - low), 0, 1).reshape(len(patches), grid, grid, 3)


def show_images(
    ax: Axes, images: Sequence[Image], *, columns: int = 6, titles: Sequence[str] = (), gap: int = 4, caption: str = ""
) -> Axes:
    """Pictures of one size in rows, with an optional title above each."""
    pictures = [_as_float(image) for image in images]
    height, width = pictures[0].shape[:2]
    rows = -(-len(pictures) // columns)
    head = round(0.16 * height) if titles else 0
    sheet = np.ones((rows * (height + gap + head) - gap, columns * (width + gap) - gap, 3))
    for i, picture in enumerate(pictures):
        y, x = (i // columns) * (height + gap + head) + head, (i % columns) * (width + gap)
        sheet[y : y + height, x : x + width] = picture
        if titles:
            ax.text(x + width / 2, y - head * 0.18, titles[i], ha="center", va="bottom", fontsize=8, parse_math=False)
    ax.imshow(sheet, interpolation="nearest")
    ax.set_axis_off()
    if caption:
        ax.set_title(caption, fontsize=10, parse_math=False)
    return ax


def training_curves(ax: Axes, history: Sequence, *, label: str = "") -> Axes:
    """Weighted loss terms per epoch, and training accuracy on a second axis."""
    epochs = [record.epoch for record in history]
    for (name, style), colour in zip(dict.fromkeys(history[0].terms, "-").items(), PALETTE[3:] + PALETTE[:3], strict=False):
        ax.plot(epochs, [record.terms[name] for record in history], style, color=colour, label=name.replace("_", " "))
    ax.set(xlabel="epoch", ylabel="loss term (weighted)", title=label)
    right = ax.twinx()
    right.plot(epochs, [record.accuracy for record in history], ":", color="black", label="training accuracy")
    right.set(ylabel="training accuracy", ylim=(0, 1.02))
    handles = ax.get_lines() + right.get_lines()
    ax.legend(handles, [h.get_label() for h in handles], fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5), borderaxespad=6.5)
    return ax


def solve_progress(ax: Axes, history: Sequence) -> Axes:
    """Best objective and proven bound of a solve over time (`selection.Progress`); the band between them is what is not yet known."""
    seconds = np.array([news.seconds for news in history])
    objective, bound = (np.array([getattr(news, name) for news in history]) for name in ("objective", "bound"))
    ax.fill_between(seconds, objective, bound, step="post", color=PALETTE[0], alpha=0.2, linewidth=0)
    ax.step(seconds, bound, where="post", color="black", linestyle="--", label="proven bound")
    ax.step(seconds, objective, where="post", color=PALETTE[0], label="best selection")
    for stage in dict.fromkeys(news.stage for news in history):
        start = next(news.seconds for news in history if news.stage == stage)
        ax.axvline(start, color="grey", linewidth=0.5)
        ax.annotate(f" {stage}", (start, 0.02), xycoords=("data", "axes fraction"), rotation=90, fontsize=7, color="grey")
    span = max(objective[-1] - objective[0], 0.05 * abs(objective[-1]))
    ax.set(xlabel="seconds", ylabel="objective", ylim=(objective[-1] - 1.5 * span, objective[-1] + 3 * span))
    ax.set_title(f"gap {100 * history[-1].gap:.3f} % after {seconds[-1]:.1f} s", fontsize=10)
    ax.legend(fontsize=8, loc="upper right")
    return ax


class LiveSolve:
    """Give it to `selection.solve` as `on_progress`: keeps the history and, in a notebook, redraws it while the solver works.

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
        from matplotlib.figure import Figure

        figure = Figure(figsize=(7, 3))
        solve_progress(figure.subplots(), self.history)
        if self._handle is None:
            self._handle = display(figure, display_id=True)
        else:
            self._handle.update(figure)

    def finish(self, ax: Axes) -> Axes:
        """Draw the whole history for good; the live picture goes away."""
        if self._handle is not None:
            from IPython.display import HTML

            self._handle.update(HTML(""))
        return solve_progress(ax, self.history)


def class_order(weight: Float[np.ndarray, "classes n"]) -> tuple[Int[np.ndarray, "classes"], Int[np.ndarray, "n"]]:
    """Order of classes and features in which similar ones are neighbours (average linkage on Jaccard distance)."""

    from scipy.cluster.hierarchy import leaves_list, linkage

    def order(rows: np.ndarray) -> np.ndarray:
        return (
            leaves_list(linkage(rows != 0, "average", metric="jaccard", optimal_ordering=True)) if len(rows) > 2 else np.arange(len(rows))
        )

    return order(weight), order(weight.T)


def class_feature_matrix(ax: Axes, weight: Float[np.ndarray, "classes n"], class_names: Sequence[str], colours: Sequence[str]) -> Axes:
    """Which class uses which feature, ordered so that neighbours share features; hollow squares are negative weights."""
    classes, features = class_order(weight)
    for y, c in enumerate(classes):
        for x, f in enumerate(features):
            if weight[c, f]:
                negative = weight[c, f] < 0
                face, edge, line = ("white", colours[f], 1.5) if negative else (colours[f], "black", 0.4)
                ax.scatter(x, y, s=38, marker="s", facecolors=face, edgecolors=edge, linewidths=line)
    ax.set_xticks(range(len(features)), [str(f) for f in features], fontsize=7)
    ax.set_yticks(range(len(classes)), [class_names[c] for c in classes], fontsize=7)
    ax.set(xlabel="feature", xlim=(-0.7, len(features) - 0.3), ylim=(len(classes) - 0.3, -0.7))
    ax.grid(alpha=0.25)
    ax.set_axisbelow(True)
    return ax


def contribution_bars(
    ax: Axes, contributions: Float[np.ndarray, "k"], features: Int[np.ndarray, "k"], colours: Sequence[str], *, bias: float = 0.0
) -> Axes:
    """What each feature adds to the logit, largest on top; the title gives the logit: their sum, and the bias where there is one."""
    order = np.argsort(contributions)
    ax.barh(range(len(order)), contributions[order], color=[colours[features[i]] for i in order], edgecolor="black", linewidth=0.5)
    ax.set_yticks(range(len(order)), [f"feature {features[i]}" for i in order], fontsize=8)
    ax.axvline(0, color="black", linewidth=0.8)
    ax.set_title(f"logit = {contributions.sum() + bias:.2f}" + (f" (bias {bias:.2f})" if bias else ""), fontsize=9)
    ax.tick_params(axis="x", labelsize=8)
    return ax


def confusion_matrix(ax: Axes, counts: Int[np.ndarray, "classes classes"], class_names: Sequence[str]) -> Axes:
    """Share of each true class (row) predicted as each class (column)."""
    share = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    ramp = LinearSegmentedColormap.from_list("blue", ["white", PALETTE[5]])
    ax.imshow(share, cmap=ramp, vmin=0, vmax=1)
    ax.set_xticks(range(len(class_names)), class_names, rotation=90, fontsize=6)
    ax.set_yticks(range(len(class_names)), class_names, fontsize=6)
    ax.set(xlabel="predicted", ylabel="true")
    return ax


def trade_off_curve(ax: Axes, points: Sequence, name: str) -> Axes:
    """Accuracy, plausibility, SID and contrastiveness against `n_features` or `n_per_class` (`qpm_lib.trade_off`), with their intervals."""
    points = sorted(points, key=lambda p: getattr(p, name))
    x = [getattr(p, name) for p in points]
    measures = {"accuracy": "accuracy", "plausibility": "plausibility", "sid": "SID@k", "contrastiveness": "contrastiveness"}
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


def bars_with_reference(
    ax: Axes, values: Mapping[str, float], *, reference: float | None = None, reference_name: str = "", percent: bool = True
) -> Axes:
    """One bar per name, with a dashed line to compare with."""
    scale = 100 if percent else 1
    bars = ax.bar(list(values), [scale * v for v in values.values()], color=PALETTE[: len(values)], edgecolor="black", linewidth=0.5)
    ax.bar_label(bars, fmt="%.1f", fontsize=8)
    if reference is not None:
        ax.axhline(scale * reference, linestyle="--", color="black", linewidth=1, label=reference_name)
        ax.legend(fontsize=8)
    ax.tick_params(axis="x", labelsize=8)
    return ax
