"""Callbacks of the widgets: an error becomes a sentence in the widget, and a control can be set without its callback
hearing of it.
"""

import functools
from collections.abc import Callable
from typing import Any

import ipywidgets as widgets

from qpm_lib.explorer.words import said


def told(method: Callable) -> Callable:
    """A callback of `Controls` whose errors become its message; called by another one, it leaves them to that."""

    @functools.wraps(method)
    def call(self: Any, *arguments: Any) -> None:
        if self.answering:
            method(self, *arguments)
            return
        self.answering, self.message.value = True, ""
        try:
            method(self, *arguments)
        except (ValueError, RuntimeError, OSError, MemoryError) as error:
            self.message.value = said("message", (str(error) or type(error).__name__).splitlines()[0])
        finally:
            self.answering = False

    return call


def set_quietly(control: widgets.Widget, value: Any, callback: Callable) -> None:
    """Set a control without its callback hearing of it."""
    control.unobserve(callback, names="value")
    control.value = value
    control.observe(callback, names="value")
