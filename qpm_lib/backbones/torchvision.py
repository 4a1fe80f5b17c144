"""Import torchvision also where its compiled extension does not fit the installed torch.

The registry's Linux wheel of torchvision is built for CUDA. Beside a CPU build of torch its extension does not load,
and the plain import fails because two operators are unknown. Declaring their signatures first is enough for everything
but image decoding and the operators themselves, and this project uses neither.
"""

import torch

_SIGNATURE = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
_libraries: list[torch.library.Library] = []


def import_torchvision() -> str:
    """Import torchvision and say how: `native`, or `guarded` where the operators had to be declared."""
    if _libraries:
        return "guarded"
    try:
        import torchvision
    except RuntimeError as error:
        if "torchvision::nms" not in str(error):
            raise
        library = torch.library.Library("torchvision", "DEF")
        _libraries.append(library)
        for name in ("nms", "qnms"):
            library.define(f"{name}{_SIGNATURE}")
        import torchvision  # noqa: F401

        return "guarded"
    return "native"
