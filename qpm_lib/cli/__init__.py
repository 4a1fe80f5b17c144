"""The `qpm` command: one file for each of its commands."""

from qpm_lib.cli.command import main

__all__ = ["main"]
