"""Controls of the explorer and where they stand; `picker`, `reasons` and `widget` say what they do."""

import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import anywidget
import ipywidgets as widgets
from PIL import Image, UnidentifiedImageError
from traitlets import Bool, Bytes, Int, Unicode

from qpm_lib.data import to_rgb

SIDE, THUMB, PER_PAGE = 448, 84, 8
PARTS = ("beak", "eye", "crown", "breast", "wing", "tail", "legs")
_MAX_PIXELS = 50_000_000
# JupyterLab marks every widget whose kernel is gone; nothing in Python can speak for it then, so the style sheet does,
# once.
_STYLE = """<style>
.qpm-explorer.jupyter-widgets-disconnected::before {
  content: "The kernel behind this was stopped or restarted: run the cell again.";
  font: inherit; padding: .6em 1em; background: #fff4e5; color: #8a3b00; border: 1px solid #8a3b00; }
.qpm-explorer .jupyter-widgets-disconnected::before { display: none; }
.qpm-explorer.jupyter-widgets-disconnected > * { opacity: .5; pointer-events: none; }
</style>"""


def feature_options(names: Sequence[str]) -> list[tuple[str, int]]:
    """Features for a menu, with their numbers where they have names of their own."""
    return [(f"{f}: {name}" if name != f"feature {f}" else name, f) for f, name in enumerate(names)]


def _numbered(names: Sequence[str]) -> list[tuple[str, int]]:
    return [(name, number) for number, name in enumerate(names)]


def _asset(name: str) -> str:
    return (Path(__file__).parent / name).read_text(encoding="utf-8")


class Picture(anywidget.AnyWidget):
    """A picture with a text for those who do not see it.

    Attributes
    ----------
    value : JPEG. text : what it shows. side : width and height in CSS pixels, 0 for those of the file.
    clickable : whether `on_click` hears of clicks.
    """

    _esm = _asset("picture.js")
    value = Bytes().tag(sync=True)
    text = Unicode().tag(sync=True)
    side = Int(0).tag(sync=True)
    clickable = Bool(False).tag(sync=True)

    def on_click(self, told: Callable[[float, float], object]) -> None:
        """Call `told(x, y)` for every click: fractions of width and height, from the upper left corner."""
        self.on_msg(lambda _, place, __: told(float(place["x"]), float(place["y"])))


class Upload(anywidget.AnyWidget):
    """A button that takes a picture file.

    Jupyter closes its connection at a message of more than 10 MB, and a photograph may be larger:
    the browser makes such a file smaller before it is sent.
    """

    _esm = _asset("upload.js")
    description = Unicode().tag(sync=True)
    max_pixels = Int(_MAX_PIXELS).tag(sync=True)

    def on_file(self, told: Callable[[str, bytes, str], object], refused: Callable[[str], object]) -> None:
        """Call `told(name, content, note)` for a file that came, the note saying how it was changed,
        and `refused(why)` for others.
        """

        def hear(_: Any, about: dict[str, str], buffers: Sequence[Any]) -> None:
            if about["problem"]:
                refused(about["problem"])
            else:
                told(about["name"], bytes(buffers[0]), about["note"])

        self.on_msg(hear)


def read_upload(name: str, content: bytes) -> Image.Image:
    """The picture in a file, in RGB; ValueError where there is none, or one of more than 50 million pixels."""
    try:
        with Image.open(io.BytesIO(content)) as image:
            if image.width * image.height > _MAX_PIXELS:
                size = image.width * image.height / 1e6
                raise ValueError(f"{name} has {size:.0f} million pixels; at most 50 are taken: make it smaller.")
            return to_rgb(image)
    except UnidentifiedImageError as error:
        raise ValueError(f"{name} cannot be read as a picture: save it as JPEG or PNG.") from error
    except (SyntaxError, OSError, Image.DecompressionBombError) as error:
        raise ValueError(f"{name} cannot be read as a picture ({error}).") from error


class Controls(widgets.VBox):
    """All controls, arranged from top to bottom: choosing a picture, the picture and its reasons,
    three tabs of questions.
    """

    def __init__(
        self, class_names: Sequence[str], feature_names: Sequence[str], *, per_class: int, grid: int, can_redraw: bool
    ) -> None:
        self._make_pictures(class_names)
        self._make_reasons(class_names, per_class)
        self._make_questions(class_names, feature_names, grid)
        self.answering = False  # whether a callback is at work (see `telling`)
        super().__init__(self._arranged(can_redraw))
        self.add_class("qpm-explorer")

    def _make_pictures(self, class_names: Sequence[str]) -> None:
        small = widgets.Layout(width="auto")
        self.which_class = widgets.Dropdown(
            options=[("all classes", -1), *_numbered(class_names)],
            description="show",
            layout=widgets.Layout(width="22em"),
        )
        self.mistakes = widgets.ToggleButton(
            description="only mistakes", tooltip="show only pictures that are answered wrongly", layout=small
        )
        self.surprise = widgets.Button(description="surprise me", layout=small)
        self.earlier, self.later = (widgets.Button(description=text, layout=small) for text in ("earlier", "later"))
        self.thumbs = [Picture(side=THUMB, clickable=True) for _ in range(PER_PAGE)]
        self.opens = [widgets.Button(layout=widgets.Layout(width=f"{THUMB}px")) for _ in range(PER_PAGE)]
        self.upload = Upload(description="your picture", layout=small)
        self.without = widgets.Dropdown(
            options=["nothing", *PARTS],
            description="draw without",
            style={"description_width": "initial"},
            layout=widgets.Layout(width="15em"),
        )
        self.picture, self.message = Picture(side=SIDE, clickable=True), widgets.HTML()
        self.words = widgets.HTML(layout=widgets.Layout(max_width=f"{SIDE}px"))

    def _make_reasons(self, class_names: Sequence[str], per_class: int) -> None:
        wide, narrow = widgets.Layout(width="auto"), widgets.Layout(width="10em")
        self.explained = widgets.Dropdown(options=_numbered(class_names), description="explain", layout=wide)
        self.method = widgets.Dropdown(options=["features"], description="map", layout=wide)
        self.granularity = widgets.IntSlider(value=8, min=2, max=20, description="clusters")
        self.switches = [widgets.Checkbox(value=True, indent=False, layout=narrow) for _ in range(per_class)]
        self.bars = [widgets.HTML(layout=widgets.Layout(width="16em")) for _ in range(per_class)]
        self.total = widgets.HTML()
        self.opacity = widgets.FloatSlider(value=0.8, min=0, max=1, step=0.05, description="opacity")
        self.threshold = widgets.FloatSlider(value=0, min=0, max=1, step=0.05, description="threshold")

    def _make_questions(self, class_names: Sequence[str], feature_names: Sequence[str], grid: int) -> None:
        wide, last = widgets.Layout(width="auto"), grid - 1
        self.other = widgets.Dropdown(options=_numbered(class_names), description="compare", layout=wide)
        self.comparison = widgets.HTML()
        self.feature = widgets.Dropdown(options=feature_options(feature_names), description="feature", layout=wide)
        self.strip, self.users = Picture(), widgets.HTML()
        self.name = widgets.Text(description="name", continuous_update=False)
        self.save = widgets.Button(description="save names", layout=widgets.Layout(width="auto"))
        self.saved, self.firing = widgets.HTML(), widgets.HTML()
        self.column, self.line = (
            widgets.IntSlider(value=last // 2, max=last, description=text) for text in ("column", "row")
        )
        self.mark = widgets.Checkbox(value=False, description="show the patch", indent=False)

    def _arranged(self, can_redraw: bool) -> list[widgets.Widget]:
        strip = widgets.HBox(
            [self.earlier, *(widgets.VBox(pair) for pair in zip(self.thumbs, self.opens, strict=True)), self.later],
            layout=widgets.Layout(flex_flow="row wrap", align_items="center"),
        )
        extra = [self.without] if can_redraw else []
        choose = widgets.HBox(
            [self.which_class, self.mistakes, self.surprise, self.upload, *extra],
            layout=widgets.Layout(flex_flow="row wrap"),
        )
        rows = [widgets.HBox(pair) for pair in zip(self.switches, self.bars, strict=True)]
        reasons = widgets.VBox(
            [self.explained, self.method, self.granularity, *rows, self.total, self.opacity, self.threshold],
            layout=widgets.Layout(width="370px"),
        )
        compare = widgets.VBox([self.other, self.comparison])
        about = widgets.VBox([self.feature, widgets.HBox([self.name, self.save, self.saved]), self.strip, self.users])
        patch = widgets.VBox([widgets.HBox([self.column, self.line, self.mark]), self.firing])
        self.tabs = widgets.Tab([compare, about, patch], titles=["another class", "one feature", "one patch"])
        middle = widgets.HBox(
            [widgets.VBox([self.picture, self.words]), reasons], layout=widgets.Layout(flex_flow="row wrap")
        )
        return [widgets.HTML(_STYLE), choose, strip, self.message, middle, self.tabs]
