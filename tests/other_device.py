"""A second device type that is always there: torch's `meta`, whose tensors have shapes and no values.

Inside `OtherDevice`, operations that mix its tensors with those of the CPU are refused, as CUDA does it, and what CUDA
allows besides is made possible: tensors come back to the CPU (as ones), and single numbers are read (1).
"""

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

META = torch.device("meta")
aten = torch.ops.aten
MIXED = (aten.copy_.default, aten._to_copy.default)
INDEXED = (aten.index.Tensor, aten.index_put_.default, aten.index_put.default)


def is_there(value):
    return isinstance(value, torch.Tensor) and value.device == META


def without_masks(indices):
    """A mask says how large its result is by its values, which there are none of: it chooses nothing."""
    found = []
    for index in indices:
        if is_there(index) and index.dtype == torch.bool:
            found += [torch.zeros(0, dtype=torch.long, device=META)] * index.ndim
        else:
            found.append(index)
    return found


class OtherDevice(TorchDispatchMode):
    """`meta` as a device like any other.

    Attributes
    ----------
    waits : how often the CPU had to wait for values: tensors that came back, numbers that were read, masks.
    """

    def __init__(self):
        super().__init__()
        self.waits = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func is aten._to_copy.default and is_there(args[0]):
            device = kwargs.get("device") or META
            if torch.device(device).type == "cpu":
                self.waits += 1
                return torch.ones(args[0].shape, dtype=kwargs.get("dtype") or args[0].dtype)
        if func is aten._local_scalar_dense.default and is_there(args[0]):
            self.waits += 1
            return torch.ones((), dtype=args[0].dtype).item()
        if func is aten.copy_.default and is_there(args[1]) and not is_there(args[0]):
            self.waits += 1
            return args[0].fill_(1)
        if func in INDEXED:
            self.waits += any(is_there(index) and index.dtype == torch.bool for index in args[1])
            args = (args[0], without_masks(args[1]), *args[2:])
        elif func not in MIXED:
            tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
            if any(map(is_there, tensors)) and any(t.ndim and not is_there(t) for t in tensors):
                raise RuntimeError(f"{func} mixes tensors of another device with those of the CPU")
        return func(*args, **kwargs)
