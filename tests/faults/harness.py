"""Kill a run at random moments until it is done, again and again, and compare what it leaves with an undisturbed run.

    python tests/faults/harness.py [--kills 50] [--to 11] [--profile smoke] [--seed 0] [--folder FOLDER]

Each round begins with an empty run folder and an empty cache of chapters. The command, or one of the processes that it
started (a kernel, a process that draws or decodes), gets SIGKILL at a random moment; the same command is started again,
until it ends by itself. Then every file is compared, to the bit; what holds times is compared without them. Between
rounds one file of every chapter is cut short, and the command is run once more. `make faults` runs this.
"""

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

VOLATILE = ("seconds", "cost", "slider_ms", "picture_ms", "peak")
# Executed copies hold times, the page and the figures of chapter 11 show what was timed.
NOT_COMPARED = ("notebooks/", "report/", "figures/11_", "comparison/", "result.json", ".lock")


def say(text):
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def plain(value):
    """A JSON value without times."""
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items() if not any(word in k for word in VOLATILE)}
    return [plain(v) for v in value] if isinstance(value, list) else value


def contents(run):
    """What is compared of a run folder."""
    found = {}
    for path in sorted(run.rglob("*")):
        name = path.relative_to(run).as_posix()
        if path.is_file() and not name.startswith(NOT_COMPARED):
            found[name] = plain(json.loads(path.read_text())) if path.suffix == ".json" else path.read_bytes()
    return found


def differences(one, other):
    """Files that only one of two runs has, or that are not equal."""
    return sorted(name for name in one.keys() | other.keys() if one.get(name) != other.get(name))


class Rounds:
    """Runs of one command, disturbed and undisturbed."""

    def __init__(self, folder, options):
        self.folder, self.options = folder, options
        self.random = random.Random(options.seed)
        self.kills = {"the command": 0, "a process that it started": 0}
        self.longest = 60.0

    def start(self, run, cache):
        command = [sys.executable, "-c", "import sys; from qpm_lib.cli import main; sys.exit(main())", "run"]
        command += ["--profile", self.options.profile, "--to", self.options.to, "--no-lesson", "--out", str(run)]
        environment = {**os.environ, "QPM_CACHE": str(cache), "TQDM_DISABLE": "1"}
        log = open(self.folder / "log.txt", "a")  # noqa: SIM115  (its reader is the process)
        return subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)

    def undisturbed(self):
        began, run = time.monotonic(), self.folder / "reference"
        if self.start(run, self.folder / "cache-reference").wait():
            raise SystemExit(f"the undisturbed run failed: see {self.folder / 'log.txt'}")
        self.longest = time.monotonic() - began
        say(f"undisturbed: {self.longest:.0f} s")
        return contents(run)

    def disturb(self, run, cache):
        """Start the command and kill something after a while; whether it ended by itself before."""
        process = self.start(run, cache)
        # Mostly soon, and now and then late enough for the longest chapter to end.
        deadline = time.monotonic() + 2 + 1.5 * self.longest * self.random.random() ** 3
        while time.monotonic() < deadline:
            if process.poll() is not None:
                return process.returncode == 0
            time.sleep(0.05)
        family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
        victim = self.random.choice([family[0], *family[1:]])
        what = "the command" if victim.pid == process.pid else "a process that it started"
        self.kills[what] += 1
        victim.send_signal(signal.SIGKILL)
        if what == "the command":  # its kernels notice by themselves, and the next start does not wait for them
            process.wait()
            time.sleep(2)
            return False
        process.wait()
        return process.returncode == 0

    def cut(self, run):
        """Cut one file of every chapter short."""
        results = json.loads((run / "result.json").read_text())
        for entry in results.values():
            names = [name for name in entry["files"] if not name.endswith(".ipynb")]
            path = run / self.random.choice(names)
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--to", default="11")
    parser.add_argument("--profile", default="smoke")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="default: a temporary folder, which is deleted")
    options = parser.parse_args()
    folder = (options.folder or Path(tempfile.mkdtemp(prefix="qpm-faults-"))).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    rounds = Rounds(folder, options)
    expected, bad, number = rounds.undisturbed(), [], 0
    while sum(rounds.kills.values()) < options.kills:
        number += 1
        run, cache = folder / f"round-{number}", folder / f"cache-{number}"
        while not rounds.disturb(run, cache):
            pass
        wrong = differences(expected, contents(run))
        rounds.cut(run)
        if rounds.start(run, cache).wait():
            wrong.append("the run after files were cut short failed")
        wrong += differences(expected, contents(run))
        bad += wrong
        told = ", ".join(f"{count} of {what}" for what, count in rounds.kills.items())
        say(f"round {number}: {told}; " + (f"DIFFERENT: {', '.join(wrong)}" if wrong else "equal to the bit"))
        shutil.rmtree(run)
        shutil.rmtree(cache)
    kills, files = sum(rounds.kills.values()), len(expected)
    say(f"{kills} kills, {number} rounds, {files} files compared in each, {len(bad)} different")
    if not options.folder:
        shutil.rmtree(folder, ignore_errors=True)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
