"""Where tensors live and in which precision they are multiplied, in one place."""

import ctypes
import os
import platform
from contextlib import AbstractContextManager, nullcontext

import torch

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # M_TRIM_THRESHOLD and M_MMAP_THRESHOLD of glibc's malloc.h
_LARGEST = 2**31 - 1


def choose_device(name: str = "auto") -> torch.device:
    """`auto` is CUDA where it works and the CPU elsewhere; every other name is a device of torch.

    On the CPU the process keeps the memory that large tensors leave (`reuse_memory`).

    Raises
    ------
    ValueError : for a name that torch does not know, or a device that is not there.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:  # what torch raises depends on its build
        raise ValueError(
            f"device (={name!r}) is not available on this machine: use device=cpu or device=auto"
        ) from error
    if device.type == "cpu":
        reuse_memory()
    return device


def reuse_memory() -> bool:
    """Keep the memory of large tensors that are freed for those that come next, which a training step is full of.

    By default glibc gives blocks of more than 128 kB to 32 MB back, and the system fills the next ones with zeros, page
    by page: a fifth of a step of the toy profile (`python benchmarks/training.py`). The process keeps up to its
    largest need until it ends. Variables of the environment that set the same (`MALLOC_TRIM_THRESHOLD_`,
    `MALLOC_MMAP_THRESHOLD_`, `GLIBC_TUNABLES`) are respected.

    Returns
    -------
    Whether the C library does so: other ones than glibc have habits of their own.
    """
    chosen = any(name.startswith(("MALLOC_", "GLIBC_TUNABLES")) for name in os.environ)
    if chosen or platform.libc_ver()[0] != "glibc":
        return False
    set_option = ctypes.CDLL(None).mallopt
    return all([set_option(option, _LARGEST) for option in (_TRIM_THRESHOLD, _MMAP_THRESHOLD)])


def mixed_precision(device: torch.device, *, on_cpu: bool = False) -> AbstractContextManager:
    """bf16 for matrix products inside, where the device has it: on a GPU, and on the CPU only if it is asked for.

    The CPU computes in float32 by default, so that results do not depend on which processor it is.
    """
    wanted = device.type == "cuda" or (on_cpu and device.type == "cpu")
    return torch.autocast(device.type, torch.bfloat16) if wanted else nullcontext()


def move(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """A tensor on a device. A GPU takes it from page-locked memory while the CPU goes on, which then does not wait."""
    if device.type == "cuda" and tensor.device.type == "cpu":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def full_precision(device: torch.device) -> AbstractContextManager:
    """float32 inside, also within `mixed_precision`: for sums that have to add up."""
    known = torch.amp.is_autocast_available(device.type)
    return torch.autocast(device.type, enabled=False) if known else nullcontext()
