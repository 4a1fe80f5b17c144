"""Kill runs, sweeps and extractions at random moments until they are done, and compare what they leave.

    python tests/faults/harness.py [--kills 50] [--to 13] [--profile smoke] [--seed 0] [--folder FOLDER]

Each round begins with empty folders and an empty cache. In a round of a run, SIGKILL comes once in every chapter, after
a random part of its time, to the command or to one of the processes that it started (a kernel, a process that draws or
decodes); then one file of every chapter is cut short, and the command is run once more. A round of a sweep (two points
up to chapter 6, a scheduler and two workers) loses its command, its scheduler, a worker and a kernel; an extraction on
two workers, one of all its processes. After each, every file is compared with undisturbed runs, to the bit; what holds
times is compared without them. Before all that, two sweeps run at once on one empty cache. Rounds go on until there
were enough kills. `make faults` runs this.
"""

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import psutil

VOLATILE = ("seconds", "cost", "slider_ms", "picture_ms", "peak")
# Executed copies hold times, the page and the figures of chapter 11 show what was timed.
NOT_COMPARED = ("notebooks/", "report/", "figures/11_", "comparison/", "result.json")
START = 4.0  # seconds that a command needs before its first chapter
POINTS = {"qpm": [], "sldd": ["--set", "selection.method=sldd"]}
QPM = [sys.executable, "-c", "import sys; from qpm_lib.cli import main; sys.exit(main())"]


def say(text):
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def plain(value):
    """A JSON value without times."""
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items() if not any(word in k for word in VOLATILE)}
    return [plain(v) for v in value] if isinstance(value, list) else value


def contents(folder):
    """What is compared of a folder."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and not name.startswith(NOT_COMPARED) and not name.endswith(".lock"):
            found[name] = plain(json.loads(path.read_text())) if path.suffix == ".json" else path.read_bytes()
    return found


def features(cache):
    """All features of a cache folder."""
    return {k: v for k, v in contents(cache).items() if k.startswith("features-")}


def differences(one, other):
    """Files that only one of two folders has, or that are not equal."""
    return sorted(name for name in one.keys() | other.keys() if one.get(name) != other.get(name))


def finished(run):
    """Names of the chapters that a run has finished."""
    place = run / "result.json"
    results = json.loads(place.read_text()) if place.exists() else {}
    return [name for name, entry in results.items() if entry.get("status") == "done"]


def family(process):
    """A process and all that came from it, as far as they are there."""
    try:
        own = psutil.Process(process.pid)
        return [own, *own.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def end(processes):
    """Kill processes and all that came from them."""
    for process in processes:
        for one in reversed(family(process)):
            with contextlib.suppress(psutil.NoSuchProcess):
                one.kill()
        process.wait()


def is_kernel(process):
    with contextlib.suppress(psutil.NoSuchProcess):
        return "ipykernel" in " ".join(process.cmdline())
    return False


class Faults:
    """Commands that are disturbed, and how often each kind of process was killed, and where."""

    def __init__(self, folder, options):
        self.folder, self.options = folder, options
        self.random, self.end = random.Random(options.seed), min(options.to, "06")
        self.kills, self.places, self.bad, self.compared = Counter(), Counter(), [], 0
        self.started = []

    def start(self, cache, *command):
        environment = {**os.environ, "QPM_CACHE": str(cache), "TQDM_DISABLE": "1", "OMP_NUM_THREADS": "1"}
        log = open(self.folder / "log.txt", "a")  # noqa: SIM115  (its reader is the process)
        self.started.append(
            subprocess.Popen(list(command), env=environment, stdout=log, stderr=log, start_new_session=True)
        )
        return self.started[-1]

    def run(self, run, cache, *more):
        command = ["run", "--profile", self.options.profile, "--no-lesson", "--out", str(run), *more]
        return self.start(cache, *QPM, *command, *([] if "--to" in more else ["--to", self.options.to]))

    def kill(self, victim, what, where):
        try:
            victim.send_signal(signal.SIGKILL)
        except (psutil.NoSuchProcess, ProcessLookupError):
            return
        self.kills[what] += 1
        self.places[where] += 1

    def judge(self, title, expected, found, more=()):
        wrong = [*differences(expected, found), *more]
        self.bad += wrong
        self.compared += len(expected)
        kills = ", ".join(f"{count} of {what}" for what, count in self.kills.items())
        say(f"{title}: " + (f"DIFFERENT: {', '.join(wrong)}" if wrong else "equal to the bit") + f" (kills: {kills})")

    def undisturbed(self):
        """Runs that nothing disturbs: what is expected of every point, and of the cache."""
        began, cache, self.of_a_sweep = time.monotonic(), self.folder / "cache-reference", {}
        for name, settings in POINTS.items():
            reference = self.folder / f"reference-{name}"
            if self.run(reference, cache, "--to", self.end, *settings).wait():
                raise SystemExit(f"the undisturbed run failed: see {self.folder / 'log.txt'}")
            self.of_a_sweep[name] = contents(reference)
        reference = self.folder / "reference-qpm"
        if self.run(reference, cache).wait():
            raise SystemExit(f"the undisturbed run failed: see {self.folder / 'log.txt'}")
        results = json.loads((reference / "result.json").read_text())
        self.seconds = {name: entry["seconds"] for name, entry in results.items()}
        self.of_a_run, self.of_an_extraction = contents(reference), features(cache)
        say(f"undisturbed: {time.monotonic() - began:.0f} s")

    def round_of_a_run(self, number):
        run, cache = self.folder / f"round-{number}", self.folder / f"cache-{number}"
        for before, seconds in enumerate(self.seconds.values()):
            process = self.run(run, cache)
            while process.poll() is None and len(finished(run)) < before:
                time.sleep(0.05)
            late = time.monotonic() + self.random.random() * (START + seconds)
            while process.poll() is None and time.monotonic() < late:
                time.sleep(0.05)
            there = family(process) if process.poll() is None else []
            if there:
                victim = self.random.choice([there[0], *there])
                what = "the command" if victim is there[0] else "a process that it started"
                self.kill(victim, what, [*self.seconds, "the report"][len(finished(run))])
            process.wait()
            time.sleep(2)  # kernels notice by themselves that their command is gone
        failed = [] if self.run(run, cache).wait() == 0 else ["the last run failed"]
        self.judge(f"round {number}, a kill in each chapter", self.of_a_run, contents(run), failed)
        self.cut(run)
        failed = [] if self.run(run, cache).wait() == 0 else ["the run after files were cut short failed"]
        self.judge(f"round {number}, a file of each chapter cut short", self.of_a_run, contents(run), failed)
        shutil.rmtree(run)
        shutil.rmtree(cache)

    def cut(self, run):
        """Cut one file of every chapter short."""
        results = json.loads((run / "result.json").read_text())
        for entry in results.values():
            names = [name for name in entry["files"] if not name.endswith(".ipynb")]
            path = run / self.random.choice(names)
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])

    def round_of_a_sweep(self, number):
        out, cache = self.folder / f"sweep-{number}", self.folder / f"cache-sweep-{number}"
        for victim in ("a scheduler", "a kernel of a worker", "the command of a sweep", "a worker", None):
            failed = self.sweep(out, cache, victim)
            if victim is None and not failed:
                break
        for name, expected in self.of_a_sweep.items():
            more = ["the last sweep failed"] if failed else []
            self.judge(f"sweep {number}, {name}", expected, contents(next(out.glob(f"*{name}*"))), more)
        shutil.rmtree(out)
        shutil.rmtree(cache)

    def sweep(self, out, cache, victim):
        """A scheduler, two workers and the command; its exit status, or 1 where something of it was killed."""
        address = cache.with_suffix(".json")
        address.unlink(missing_ok=True)
        dask = [sys.executable, "-m", "distributed.cli.dask_scheduler"]
        scheduler = self.start(cache, *dask, "--port", "0", "--no-dashboard", "--scheduler-file", str(address))
        while not address.exists():
            time.sleep(0.1)
        one = [sys.executable, "-m", "distributed.cli.dask_worker", "--scheduler-file", str(address)]
        workers = [self.start(cache, *one, "--nthreads", "1", "--no-dashboard") for _ in range(2)]
        grid = ["--grid", f"selection.method={','.join(POINTS)}", "--to", self.end, "--no-lesson", "--out", str(out)]
        where = ["--scheduler", json.loads(address.read_text())["address"]]
        command = self.start(cache, *QPM, "sweep", "--profile", self.options.profile, *grid, *where)
        most = sum(seconds for name, seconds in self.seconds.items() if name < "07")
        late = time.monotonic() + START + self.random.random() * (START + most / 4)
        while victim and command.poll() is None and time.monotonic() < late:
            time.sleep(0.05)
        if victim and command.poll() is None:
            each = [family(worker) for worker in workers]
            kernels = [p for ps in each for p in ps if is_kernel(p)]
            processes = [p for ps in each for p in ps[1:] if p not in kernels]  # those that its nanny watches
            known = {"a scheduler": family(scheduler)[:1], "the command of a sweep": family(command)[:1]}
            known |= {"a worker": processes, "a kernel of a worker": kernels}
            if known[victim]:
                self.kill(self.random.choice(known[victim]), victim, "sweep")
        status = command.wait()
        end([*workers, scheduler])
        return status

    def two_sweeps_at_once(self):
        """Two commands with workers of their own share an empty cache."""
        cache, outs = self.folder / "cache-shared", [self.folder / f"at-once-{name}" for name in "ab"]
        grid = ["--grid", f"selection.method={','.join(POINTS)}", "--to", self.end, "--no-lesson", "--workers", "2"]
        command = [*QPM, "sweep", "--profile", self.options.profile, *grid, "--out"]
        both = [self.start(cache, *command, str(out)) for out in outs]
        failed = ["one of them failed"] if any([process.wait() for process in both]) else []
        for out in outs:
            for name, expected in self.of_a_sweep.items():
                self.judge(f"two sweeps at once, {name}", expected, contents(next(out.glob(f"*{name}*"))), failed)
            shutil.rmtree(out)
        shutil.rmtree(cache)

    def round_of_an_extraction(self, number):
        cache = self.folder / f"cache-extraction-{number}"
        for _ in range(3):
            process = self.start(cache, *QPM, "extract", "--profile", self.options.profile)
            late = time.monotonic() + START + 6 * self.random.random()
            while process.poll() is None and time.monotonic() < late:
                time.sleep(0.05)
            there = family(process) if process.poll() is None else []
            if there:
                victim = self.random.choice(there)
                self.kill(victim, "the command" if victim is there[0] else "a process that it started", "extraction")
            process.wait()
        failed = self.start(cache, *QPM, "extract", "--profile", self.options.profile).wait()
        more = ["the last extraction failed"] if failed else []
        self.judge(f"extraction {number}", self.of_an_extraction, features(cache), more)
        shutil.rmtree(cache)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--to", default="13")
    parser.add_argument("--profile", default="smoke")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="default: a temporary folder, which is deleted")
    options = parser.parse_args()
    folder = (options.folder or Path(tempfile.mkdtemp(prefix="qpm-faults-"))).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    faults, number = Faults(folder, options), 0
    try:
        faults.undisturbed()
        faults.two_sweeps_at_once()
        while faults.kills.total() < options.kills:
            number += 1
            faults.round_of_an_extraction(number)
            faults.round_of_a_sweep(number)
            faults.round_of_a_run(number)
    finally:
        end(faults.started)  # whatever happened
    where = ", ".join(f"{count} in {place}" for place, count in sorted(faults.places.items()))
    say(f"{faults.kills.total()} kills ({where}), {faults.compared} files compared, {len(faults.bad)} different")
    if not options.folder:
        shutil.rmtree(folder, ignore_errors=True)
    return 1 if faults.bad else 0


if __name__ == "__main__":
    sys.exit(main())
