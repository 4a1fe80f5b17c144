"""`qpm doctor`: what this machine has and what is missing, one line per check."""

import argparse
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from typing import NamedTuple

from qpm_lib.cli.output import show
from qpm_lib.core import cache_folder, make_cache_folder

NAME, SHORT = "doctor", "check this machine"

_MIN_FREE_GB = 2.0


class Check(NamedTuple):
    """One line: what was looked at, what was found, and the remedy where it is unusable."""

    name: str
    found: str
    remedy: str = ""


def _python() -> Check:
    version = ".".join(map(str, sys.version_info[:3]))
    return Check("Python", version, "" if (3, 11) <= sys.version_info[:2] <= (3, 13) else "install Python 3.11 to 3.13")


def _torch() -> Check:
    import torch

    return Check("torch", f"{torch.__version__}, {torch.get_num_threads()} threads")


def _device() -> Check:
    import torch

    if torch.cuda.is_available():
        return Check("device", f"cuda ({torch.cuda.get_device_name()})")
    return Check("device", f"cpu ({os.cpu_count()} cores)")


def _torchvision() -> Check:
    from qpm_lib.backbones import import_torchvision

    how = import_torchvision()
    import torchvision

    note = "" if how == "native" else " (its compiled operators do not fit this torch; none of them is needed)"
    return Check("torchvision", f"{torchvision.__version__}, {how}{note}")


def _scip() -> Check:
    import pyscipopt

    model = pyscipopt.Model()
    return Check("SCIP", f"{model.version()} (PySCIPOpt {pyscipopt.__version__})")


def _kernel() -> Check:
    from jupyter_client.kernelspec import KernelSpecManager

    spec = KernelSpecManager().get_kernel_spec("python3")
    return Check("Jupyter kernel", spec.display_name)


def _backbone() -> Check:
    from qpm_lib.backbones import TOY_WEIGHTS

    found = TOY_WEIGHTS.exists()
    return Check(
        "toy backbone",
        f"{TOY_WEIGHTS.stat().st_size / 1e6:.1f} MB" if found else "missing",
        "" if found else "reinstall the package: qpm_lib/assets/toy_vit.safetensors belongs to it",
    )


def _cache() -> Check:
    try:
        return Check("cache folder", str(make_cache_folder()))
    except OSError as error:
        remedy = "set QPM_CACHE to a folder that can be written"
        return Check("cache folder", f"{cache_folder()} ({error.strerror})", remedy)


def _disk() -> Check:
    folder = cache_folder()
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free / 1e9
    return Check(
        "free disk",
        f"{free:.1f} GB",
        ""
        if free >= _MIN_FREE_GB
        else f"at least {_MIN_FREE_GB} GB are needed: free some, or set QPM_CACHE to another disk",
    )


CHECKS: dict[str, Callable[[], Check]] = {
    "Python": _python,
    "torch": _torch,
    "device": _device,
    "torchvision": _torchvision,
    "SCIP": _scip,
    "Jupyter kernel": _kernel,
    "toy backbone": _backbone,
    "cache folder": _cache,
    "free disk": _disk,
}


def examine() -> Iterator[Check]:
    """Run every check; one that raises is reported as unusable."""
    for name, check in CHECKS.items():
        try:
            yield check()
        except Exception as error:  # a broken installation can raise anything, and each line must come out
            yield Check(name, f"{type(error).__name__}: {error}", "install the project again: pip install -e .")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what the command takes: nothing."""
    parser.description = "One line per check; exit status 1 with the remedy when something is unusable."


def execute(_: argparse.Namespace) -> int:
    """Run the command."""
    healthy = True
    for check in examine():
        healthy &= not check.remedy
        show(f"{'FAIL' if check.remedy else 'ok  '} {check.name:<15} {check.found}")
        if check.remedy:
            show(f"     remedy: {check.remedy}")
    return 0 if healthy else 1
