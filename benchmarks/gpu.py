"""Everything that needs a GPU, in one go: the tests marked `gpu`, and what training and extraction cost there.

    python benchmarks/gpu.py [--out gpu-results] [--only training ...]

Writes `results.json` (the machine, and every command with its status, seconds and output) and `results.md` (the
tables) into the folder. `make gpu` runs this. Exits with 1 where a command failed; the others run all the same.
"""

import argparse
import logging
import os
import platform
import subprocess
import sys
import time
from datetime import date
from pathlib import Path
from typing import Any

import torch

from qpm_lib.core import write_json

log = logging.getLogger("benchmark")
HERE = Path(__file__).parent
COMMANDS = {
    "tests": ["-m", "pytest", "-m", "gpu", "-q", str(HERE.parent / "tests")],
    "training": [str(HERE / "training.py"), "--device", "cuda"],
    "extraction, DINOv2 small": [str(HERE / "extraction.py"), "--workers", "8", "--images", "2048", "--batch", "64"],
    "extraction, ResNet-50": [
        *(str(HERE / "extraction.py"), "--backbone", "resnet50"),
        *("--workers", "8", "--images", "2048", "--batch", "64"),
    ],
    "extraction, DINOv2 large": [
        *(str(HERE / "extraction.py"), "--backbone", "dinov2_vitl14_reg"),
        *("--workers", "8", "--images", "1024", "--batch", "64"),
    ],
}


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    there = torch.cuda.is_available()
    return {
        "date": date.today().isoformat(),
        "gpu": torch.cuda.get_device_name() if there else None,
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "python": platform.python_version(),
    }


def run(name: str) -> dict[str, Any]:
    """One command: its status, its time, and the last of what it printed."""
    began = time.perf_counter()
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    environment = {**os.environ, "TQDM_DISABLE": "1"}
    done = subprocess.run([sys.executable, *COMMANDS[name]], check=False, env=environment, **options)  # noqa: S603
    lines = [line for line in done.stdout.splitlines() if line.strip()]
    return {"command": name, "status": done.returncode, "seconds": time.perf_counter() - began, "output": lines[-200:]}


def report(about: dict[str, Any], found: list[dict[str, Any]]) -> str:
    """The tables of all commands, and the last line of those that print none."""
    text = [f"# {about['gpu']}, torch {about['torch']}, Python {about['python']}, {about['date']}"]
    for one in found:
        rows = [line for line in one["output"] if line.startswith("|")] or one["output"][-1:]
        text += ["", f"## {one['command']} ({one['seconds']:.0f} s, exit {one['status']})", "", *rows]
    return "\n".join(text) + "\n"


def main() -> int:
    """Run, and write both files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("gpu-results"))
    parser.add_argument("--only", nargs="+", choices=list(COMMANDS), default=list(COMMANDS), metavar="NAME")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    about = machine()
    if about["gpu"] is None:
        sys.stderr.write("error: no CUDA device was found: these tests and benchmarks are those of a GPU\n")
        return 1
    found = []
    for name in arguments.only:
        log.info("%s ...", name)
        found.append(run(name))
        write_json(arguments.out / "results.json", {**about, "commands": found})
        (arguments.out / "results.md").write_text(report(about, found), encoding="utf-8")
    log.info("\n%s\nwritten: %s", report(about, found), arguments.out)
    return int(any(one["status"] for one in found))


if __name__ == "__main__":
    sys.exit(main())
