"""One call that seeds everything, and the choice of the device."""

import random

import numpy as np
import torch


def seed_everything(seed: int) -> torch.Generator:
    """Seed Python, NumPy and torch, and return a fresh CPU generator with the same seed for code that takes one."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
    return torch.Generator().manual_seed(seed)


def choose_device(name: str = "auto") -> torch.device:
    """`auto` is CUDA where it works and the CPU elsewhere.

    Raises
    ------
    ValueError : when CUDA is asked for and not there.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise ValueError(f"device (={name!r}) is not available on this machine: use device=cpu or device=auto")
    return torch.device(name)
