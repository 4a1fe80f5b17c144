"""Processes that execute chapters: dask.distributed, on this machine or behind a scheduler somewhere else."""

import logging
import os
import platform
import signal
import threading
import uuid
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from multiprocessing import resource_tracker
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from qpm_lib.core import VERSION, choose_device
from qpm_lib.runs import this_computer

if TYPE_CHECKING:
    from distributed import Client

_PATIENCE = 20


@dataclass(frozen=True)
class Workers:
    """A client of some workers, and what they have in common.

    Attributes
    ----------
    computer : what stands for them in the names of kept chapters. threads : that each chapter may use.
    """

    client: "Client"
    count: int
    computer: str
    threads: int


def import_distributed() -> Any:
    """dask.distributed, which is an extra.

    Raises
    ------
    ValueError : where it is not installed.
    """
    try:
        import distributed
    except ImportError as error:
        raise ValueError("several workers need dask.distributed: pip install 'qpm_lib[cluster]'") from error
    return distributed


def threads_each(count: int) -> int:
    """Threads of each of some processes that share this machine."""
    return max(1, (os.cpu_count() or 1) // count)


@contextmanager
def start_workers(
    count: int = 2, *, scheduler: str | None = None, folders: Sequence[Path] = (), device: str = "auto"
) -> Iterator[Workers]:
    """Start `count` processes on this machine, which share its cores, or use those of a running scheduler.

    Parameters
    ----------
    folders : that every worker must see as this process does: it looks for a file in each. device : of the runs.

    Raises
    ------
    ValueError : for fewer than one worker, or where dask.distributed is not installed.
    RuntimeError : for a scheduler that does not answer or has no workers, and for workers that are lost at once, have
        another version of this package, Python or torch, or do not see the folders.
    """
    if count < 1:
        raise ValueError(f"--workers (={count}) must be at least 1")
    distributed = import_distributed()
    logging.getLogger("distributed").setLevel(logging.ERROR)
    if scheduler:
        with _connect(distributed, scheduler) as client:
            yield _checked(client, folders, device)
        return
    threads = threads_each(count)
    # Memory is not limited: what a chapter needs is that of its kernel, which the worker does not see.
    options = {"n_workers": count, "threads_per_worker": 1, "processes": True, "dashboard_address": ":0"}
    options |= {"memory_limit": 0, "silence_logs": logging.CRITICAL}
    environment = {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads), "TQDM_DISABLE": "1"}
    started = ExitStack()
    resource_tracker.ensure_running()  # which, once started, leaves the mask of signals alone
    try:
        with _uninterrupted():
            cluster = started.enter_context(distributed.LocalCluster(**options, env=environment))
            client = started.enter_context(distributed.Client(cluster))
        yield _checked(client, folders, device)
    finally:
        with _uninterrupted():
            started.close()


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Hold Ctrl-C back; what came meanwhile is raised at the end. Threads and processes that start here never see one:
    an interrupt is for the command, which ends them.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []
    # Threads that were there before take signals as well, so that a mask alone does not spare this one.
    handler = signal.signal(signal.SIGINT, lambda number, _: came.append(number))
    masked = hasattr(signal, "pthread_sigmask")
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT}) if masked else set()
    try:
        yield
    finally:
        if masked:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        signal.signal(signal.SIGINT, handler)
    if came:
        raise KeyboardInterrupt


def _connect(distributed: Any, address: str) -> "Client":
    try:
        return distributed.Client(address, timeout=_PATIENCE)
    except (OSError, ValueError, TimeoutError) as error:
        raise RuntimeError(
            f"the scheduler {address} does not answer: start it with dask scheduler, and give its address, "
            "for example tcp://host:8786"
        ) from error


def _checked(client: "Client", folders: Sequence[Path], device: str) -> Workers:
    from distributed.comm import CommClosedError

    token = f".seen-{uuid.uuid4().hex}"
    try:
        for folder in folders:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / token).touch()
        client.wait_for_workers(1, timeout=_PATIENCE)
        found = client.run(_look, [str(folder / token) for folder in folders], device)
    except TimeoutError as error:
        raise RuntimeError(f"no worker came within {_PATIENCE} s: start some with dask worker ADDRESS") from error
    except ImportError as error:
        raise RuntimeError(f"a worker cannot import this package ({error}): install the same version there") from error
    except CommClosedError as error:
        words = "a worker was lost before it began (too little memory?): run the same command again"
        raise RuntimeError(words) from error
    finally:
        for folder in folders:
            (folder / token).unlink(missing_ok=True)
    here = _versions()
    for address, (versions, missing, _, _) in found.items():
        if versions != here:
            told = ", ".join(f"{name} {versions.get(name)} (here {own})" for name, own in here.items())
            raise RuntimeError(f"worker {address} has other versions: {told}; install the same ones")
        if missing:
            where = ", ".join(str(Path(path).parent) for path in missing)
            raise RuntimeError(
                f"worker {address} does not see {where}: run folders and the cache folder (QPM_CACHE) must lie on a "
                "file system that all workers share"
            )
    first = next(iter(found.values()))
    return Workers(client, len(found), first[2], first[3])


def _versions() -> dict[str, str]:
    return {"qpm_lib": VERSION, "Python": platform.python_version(), "torch": torch.__version__}


def _look(files: Sequence[str], device: str) -> tuple[dict[str, str], list[str], str, int]:
    """On a worker: its versions, the files that it does not see, its computer, and the threads of a chapter."""
    choose_device(device)
    threads = int(os.environ.get("OMP_NUM_THREADS") or os.cpu_count() or 1)
    return _versions(), [path for path in files if not Path(path).exists()], this_computer(device), threads
