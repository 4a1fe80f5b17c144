"""What a map costs: seconds, forward passes of the backbone, memory."""

import platform
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import psutil
import torch

from qpm_lib.comparison.case import Case
from qpm_lib.explain import ExplanationMethod

_PICTURES, _EVERY = 8, 0.002


class Cost(NamedTuple):
    """Seconds a picture for one class; the same in times of a forward pass, measured right before; peak of
    memory above what was in use before, in megabytes (of the process, looked at every 2 ms; on a GPU, of its
    allocator).
    """

    seconds: float
    passes: float
    megabytes: float


def where(case: Case) -> str:
    """Machine and device, on which a cost holds."""
    return f"{platform.node()} {platform.machine()} {case.target.device.type}"


def cost_of(case: Case, method: ExplanationMethod) -> Cost:
    """Cost of a map, in one batch of up to eight pictures, after a first one."""
    method(case.images[:1], case.labels[:1])
    images, labels = case.images[:_PICTURES], case.labels[:_PICTURES]
    pixels, target = case.target.pixels(images), case.target

    def forward() -> None:
        with torch.no_grad():
            target(pixels)

    forward()
    one = float(np.median([_seconds(forward, target.device) for _ in range(3)]))
    with _memory(target.device) as used:
        seconds = _seconds(lambda: method(images, labels), target.device)
    return Cost(seconds / len(images), seconds / one, used[0])


def _seconds(run: Callable[[], object], device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    run()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


@contextmanager
def _memory(device: torch.device) -> Iterator[list[float]]:
    """Peak above the start within the block, in the first place of the list, once it has ended."""
    found = [0.0]
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        yield found
        found[0] = (torch.cuda.max_memory_allocated() - before) / 2**20
        return
    process, ended = psutil.Process(), threading.Event()
    before = peak = process.memory_info().rss

    def look() -> None:
        nonlocal peak
        while not ended.wait(_EVERY):
            peak = max(peak, process.memory_info().rss)

    watch = threading.Thread(target=look, daemon=True)
    watch.start()
    try:
        yield found
    finally:
        ended.set()
        watch.join()
        found[0] = (max(peak, process.memory_info().rss) - before) / 2**20
