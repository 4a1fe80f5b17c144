"""Pages from template files: Jinja2, with every value escaped unless it is marked as safe."""

from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jinja2 import Environment


@cache
def templates(room: str) -> "Environment":
    """The templates of a room, `qpm_lib/<room>/templates`; a name that a template does not get is an error.

    In a template, `signed` is a filter for numbers with two digits and their sign, and `file` a function that gives a
    file beside the templates as it is.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=PackageLoader(f"qpm_lib.{room}"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    folder = files(f"qpm_lib.{room}") / "templates"
    environment.filters["signed"] = lambda value: f"{value:+.2f}"
    environment.globals["file"] = lambda name: Markup((folder / name).read_text(encoding="utf-8"))  # noqa: S704 - our own file
    environment.policies["json.dumps_kwargs"] = {"separators": (",", ":")}
    return environment
