"""Precision and devices: what is chosen, and that no device type is a problem."""

import ast
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import qpm_lib
from qpm_lib.core.devices import choose_device, full_precision, mixed_precision


def product(device, dtype=torch.float32):
    return (torch.ones(4, 4, device=device, dtype=dtype) @ torch.ones(4, 4, device=device, dtype=dtype)).dtype


def test_the_cpu_is_there_and_what_is_not_there_is_named():
    assert choose_device("cpu") == torch.device("cpu")
    assert choose_device().type == ("cuda" if torch.cuda.is_available() else "cpu")
    for name in ("cuda:99", "xpu" if not torch.xpu.is_available() else "mps", "toaster"):
        with pytest.raises(ValueError, match=f"device \\(='{name}'\\) is not available"):
            choose_device(name)


@pytest.mark.parametrize("kind", ["cpu", "meta"])
def test_the_cpu_and_unknown_devices_stay_in_full_precision(kind):
    device = torch.device(kind)
    with mixed_precision(device):
        assert product(device) == torch.float32
    with full_precision(device):
        assert product(device) == torch.float32


def test_bf16_on_the_cpu_only_if_asked_for_and_full_precision_inside_it():
    device = torch.device("cpu")
    with mixed_precision(device, on_cpu=True):
        assert product(device) == torch.bfloat16
        with full_precision(device):
            assert product(device) == torch.float32


FAULTS = """
import resource, torch
from qpm_lib.core.devices import reuse_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        torch.ones(2**23)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

print(faults(), reuse_memory(), faults() and faults())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is not glibc")
@pytest.mark.parametrize("chosen", [{}, {"MALLOC_TOP_PAD_": "131072"}])
def test_memory_of_large_tensors_is_used_again_unless_the_environment_says_otherwise(chosen):
    """Counted are pages that the system has to hand out, for ten tensors of 32 MB of which one lives at a time."""
    others = {k: v for k, v in os.environ.items() if not k.startswith(("MALLOC_", "GLIBC_TUNABLES"))}
    run = subprocess.run(
        [sys.executable, "-c", FAULTS], env=others | chosen, capture_output=True, text=True, check=True
    )
    before, reused, after = run.stdout.split()
    assert reused == str(not chosen)
    assert int(before) > 10_000
    assert int(after) < 100 if not chosen else int(after) > 10_000


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA on this machine")
def test_bf16_on_a_gpu():
    device = torch.device("cuda")
    with mixed_precision(device):
        assert product(device) == torch.bfloat16


def test_precision_is_chosen_nowhere_else():
    """Calls of `autocast` stand in one file."""
    package = Path(qpm_lib.__file__).parent
    places = {
        path.relative_to(package).as_posix()
        for path in package.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute) and node.attr == "autocast"
    }
    assert places == {"core/devices.py"}
