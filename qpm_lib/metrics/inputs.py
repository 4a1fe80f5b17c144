"""Every measure takes NumPy arrays and tensors alike: shapes are checked against each other,
and what does not fit is named.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor

Array = np.ndarray | Tensor


def tensors(**given: tuple[Any, str]) -> list[Tensor]:
    """The arrays as tensors, in their order and without a graph: measures are no losses.

    Parameters
    ----------
    given : by name, an array and its axes, for example `weight=(weight, "classes features")`;
        axes of one name must have one length.

    Raises
    ------
    ValueError : for something that is no array, another number of axes, an axis that does not fit an array before it,
        or values that are not finite.
    """
    sizes: dict[str, tuple[int, str]] = {}
    found = []
    for name, (value, axes) in given.items():
        if not isinstance(value, Array):
            raise ValueError(f"{name} is of type {type(value).__name__}: a NumPy array or a tensor is needed")
        names, shape = axes.split(), tuple(value.shape)
        if len(shape) != len(names):
            raise ValueError(f"{name} has shape {shape}: its axes must be ({', '.join(names)})")
        for axis, length in zip(names, shape, strict=True):
            known, owner = sizes.setdefault(axis, (length, name))
            if length != known:
                raise ValueError(f"{name} has {length} {axis}, {owner} has {known} (shape {shape}): they must agree")
        tensor = torch.as_tensor(value).detach()
        if tensor.is_floating_point() and not tensor.isfinite().all():
            bad = int((~tensor.isfinite()).sum())
            raise ValueError(f"{name} holds {bad} values that are not finite: a measure of them would mean nothing")
        found.append(tensor)
    return found


def arrays(**given: tuple[Any, str]) -> list[np.ndarray]:
    """As `tensors`, as NumPy arrays; tensors are taken from their device and graph, floats of less than 32 bits
    widened.
    """
    widened = (t.float() if t.dtype in (torch.float16, torch.bfloat16) else t for t in tensors(**given))
    return [t.detach().cpu().numpy() for t in widened]


def check_classes(name: str, values: Tensor | np.ndarray, count: int) -> None:
    """Refuse class numbers outside 0 to count - 1, and types that do not count (PyTorch reads uint8 as a mask).

    Raises
    ------
    ValueError : naming the first of them, or the type.
    """
    kind = str(values.dtype).removeprefix("torch.")
    if kind not in ("int16", "int32", "int64"):
        raise ValueError(f"{name} is of type {kind}: class numbers of type int64 are needed")
    outside = values[(values < 0) | (values >= count)]
    if len(outside):
        raise ValueError(f"{name} holds class {int(outside[0])}: classes are numbered 0 to {count - 1}")
