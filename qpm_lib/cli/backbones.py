"""`qpm backbones`: which there are."""

import argparse

from qpm_lib.cli.output import show, show_table

NAME, SHORT = "backbones", "list the backbones"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what the command takes: nothing."""
    parser.description = "Name, sizes, licence, and whether the weights are on this machine."


def execute(_: argparse.Namespace) -> int:
    """Run the command."""
    from qpm_lib.backbones import BACKBONES, weights_at_hand

    rows = [["name", "patch", "width", "registers", "parameters", "memory", "weights", "licence of the weights"]]
    for name, entry in BACKBONES.items():
        shape = [f"{entry.patch_size} px", str(entry.width), str(entry.registers)]
        size = [f"{entry.parameters:.1f} M", f"{entry.parameters * 4 / 1024:.2f} GB"]
        rows.append([name, *shape, *size, weights_at_hand(name), entry.licence])
    show_table(rows)
    show("\nuse one:  qpm run --set backbone.name=dinov2_vits14   (downloads the weights once)")
    show("offline:  --set backbone.weights=FILE, an official .pth file or safetensors")
    return 0
