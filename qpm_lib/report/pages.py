"""Pages of the report: their file names, and how templates become pages."""

from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from qpm_lib.core import templates, write_atomically

if TYPE_CHECKING:
    from jinja2 import Environment
    from markupsafe import Markup


class Page(NamedTuple):
    """A page of the report: title, and body as HTML."""

    title: str
    body: str


def class_file(c: int) -> str:
    """File name of the page of a class."""
    return f"class_{c:03d}.html"


def feature_file(f: int) -> str:
    """File name of the page of a feature."""
    return f"feature_{f:02d}.html"


def counted(number: int, one: str, many: str) -> str:
    """A number with its noun."""
    return f"{number} {one if number == 1 else many}"


@cache
def _environment() -> "Environment":
    environment = templates("report").overlay()
    environment.globals = {
        **environment.globals,
        "class_file": class_file,
        "feature_file": feature_file,
        "counted": counted,
    }
    return environment


def render(template: str, **values: Any) -> "Markup":
    """A template with its values, as HTML; values are escaped."""
    from markupsafe import Markup

    return Markup(_environment().get_template(template).render(values))  # noqa: S704 - autoescaped


def write_alone(page: Page, folder: Path) -> Path:
    """Write `index.html` and the style to a folder that is no report; returns the page."""
    style = (files("qpm_lib.report") / "templates" / "style.css").read_bytes()
    write_atomically(folder / "style.css", lambda place: place.write_bytes(style))
    text = whole_page(page, [("index.html", page.title)])
    write_atomically(folder / "index.html", lambda place: place.write_text(text, encoding="utf-8"))
    return folder / "index.html"


def write_page(template: str, title: str, folder: Path, **values: Any) -> Path:
    """Write a template with its values as the only page of a folder; returns the page."""
    return write_alone(Page(title, render(template, **values)), folder)


def whole_page(page: Page, links: Sequence[tuple[str, str]]) -> str:
    """A page with its head and its links: file and name of each."""
    from markupsafe import Markup

    return str(render("layout.html", title=page.title, body=Markup(page.body), links=links))  # noqa: S704 - made by `render`
