"""Fetch the weights of backbones, so that everything after it works without a network.

    python data_scripts/fetch_weights.py dinov2_vits14 dinov2_vitb14_reg

`qpm backbones` lists the names with sizes and licences. Weights come from the Hugging Face hub (timm's copies of the
official ones) into its usual cache; a download that was stopped goes on, and the hub checks what arrives. Prints name,
size and SHA-256 of the weights as the model sees them. DINOv3 needs an account that has accepted Meta's licence (`hf
auth login` first).
"""

import argparse
from collections.abc import Sequence

from qpm_lib.backbones import BACKBONES, load_backbone
from qpm_lib.data import told_by


def main(argv: Sequence[str] | None = None) -> None:
    """Parse the arguments, fetch and show."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "names",
        nargs="+",
        choices=[name for name in BACKBONES if name != "toy"],
        metavar="NAME",
        help="see qpm backbones",
    )
    for name in parser.parse_args(argv).names:
        with told_by(parser):
            backbone = load_backbone(name)
        print(
            f"{name}: {backbone.width} wide, {backbone.grid} x {backbone.grid} patches, "
            f"SHA-256 {backbone.fingerprint['weights_sha256']}"
        )


if __name__ == "__main__":
    main()
