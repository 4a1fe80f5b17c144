"""Where tensors live and in which precision they are multiplied, in one place."""

from contextlib import AbstractContextManager, nullcontext

import torch


def choose_device(name: str = "auto") -> torch.device:
    """`auto` is CUDA where it works and the CPU elsewhere; every other name is a device of torch.

    Raises
    ------
    ValueError : for a name that torch does not know, or a device that is not there.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:  # what torch raises depends on its build
        raise ValueError(
            f"device (={name!r}) is not available on this machine: use device=cpu or device=auto"
        ) from error
    return device


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
