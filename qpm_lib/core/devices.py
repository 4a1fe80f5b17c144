"""Where tensors live and in which precision they are multiplied, in one place."""

import torch


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
