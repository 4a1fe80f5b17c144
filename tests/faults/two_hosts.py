"""A sweep on two hosts, and on two hosts of which one loses its network.

    sudo .venv/bin/python tests/faults/two_hosts.py [--to 04] [--profile smoke] [--cut 30]

The hosts are network namespaces of Linux (`ip netns`, root needed) with addresses and names of their own, joined by one
virtual cable; scheduler, command and a worker run on the first, another worker on the second, all with the lines that
README gives. They share a folder for runs and cache. The sweep (two seeds, two methods) is compared with that of two
workers without any network, to the bit; then two other seeds run, and after `--cut` seconds the cable is taken away.
"""

import argparse
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from harness import QPM, contents, differences, end, say

ADDRESSES = {"qpm-first": "10.7.0.1", "qpm-second": "10.7.0.2"}
PORT = 8786


def ip(*words):
    subprocess.run(["ip", *words], check=True)


def connect():
    """Two hosts and the cable between them."""
    first, second = ADDRESSES
    for name in ADDRESSES:
        ip("netns", "add", name)
    ip("link", "add", "cable", "netns", first, "type", "veth", "peer", "name", "cable", "netns", second)
    for name, address in ADDRESSES.items():
        ip("-n", name, "addr", "add", f"{address}/24", "dev", "cable")
        for device in ("lo", "cable"):
            ip("-n", name, "link", "set", device, "up")


def disconnect():
    for name in ADDRESSES:
        subprocess.run(["ip", "netns", "delete", name], check=False, stderr=subprocess.DEVNULL)


class Hosts:
    """Commands on two hosts with a shared folder."""

    def __init__(self, folder, options):
        self.folder, self.options, self.started = folder, options, []

    def start(self, host, cache, *command):
        on = ["ip", "netns", "exec", host, "unshare", "--uts", "sh", "-c", f'hostname {host}; exec "$@"', "sh"]
        environment = {**os.environ, "QPM_CACHE": str(self.folder / cache), "TQDM_DISABLE": "1", "OMP_NUM_THREADS": "1"}
        with (self.folder / "log.txt").open("a") as log:
            where = {"env": environment, "stdout": log, "stderr": log, "start_new_session": True}
            self.started.append(subprocess.Popen([*(on if host else []), *command], **where))
        return self.started[-1]

    def sweep(self, out, seeds, host, cache, *workers):
        settings = ["--profile", self.options.profile, "--to", self.options.to, "--no-lesson"]
        grid = ["--grid", f"seed={seeds}", "--grid", "selection.method=qpm,sldd", "--out", str(self.folder / out)]
        return self.start(host, cache, *QPM, "sweep", *settings, *grid, *workers)

    def start_engine(self):
        first, dask = next(iter(ADDRESSES)), [sys.executable, "-m"]
        address = f"tcp://{ADDRESSES[first]}:{PORT}"
        engine = [*dask, "distributed.cli.dask_scheduler", "--host", ADDRESSES[first], "--no-dashboard"]
        self.start(first, "shared", *engine)
        for host in ADDRESSES:
            worker = [*dask, "distributed.cli.dask_worker", address, "--nthreads", "1", "--no-dashboard"]
            self.start(host, "shared", *worker)
        return address


def check(folder, options):
    """Number of files compared, and names of those that differ or are missing."""
    hosts, first, compared, wrong = Hosts(folder, options), next(iter(ADDRESSES)), 0, []
    try:
        address = hosts.start_engine()
        for what, seeds in (("two hosts", "0,1"), ("two hosts, of which one is cut off", "2,3")):
            status = hosts.sweep("local", seeds, None, "alone", "--workers", "2").wait()
            command = hosts.sweep("hosts", seeds, first, "shared", "--scheduler", address)
            if "cut" in what:
                time.sleep(options.cut)
                cut = command.poll() is None
                ip("-n", list(ADDRESSES)[1], "link", "set", "cable", "down")
                what += "" if cut else " (the sweep had ended before: --cut is too long)"
            wrong += [f"{what}: a command failed"] if status or command.wait() else []
            before = compared
            for point in (folder / "local").glob("seed-*"):
                expected = contents(point)
                wrong += [f"{point.name}/{f}" for f in differences(expected, contents(folder / "hosts" / point.name))]
                compared += len(expected)
            say(f"{what}: {compared - before} files compared, {len(wrong)} different so far")
            shutil.rmtree(folder / "local")
            shutil.rmtree(folder / "hosts")
    finally:
        end(hosts.started)
    return compared, wrong


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--to", default="04")
    parser.add_argument("--profile", default="smoke")
    parser.add_argument("--cut", type=float, default=30.0, help="seconds after which the second host is cut off")
    options = parser.parse_args()
    if platform.system() != "Linux" or os.geteuid() or not shutil.which("ip"):
        raise SystemExit("this needs Linux, root, and the command ip (package iproute2)")
    folder = Path(tempfile.mkdtemp(prefix="qpm-hosts-"))
    try:
        connect()
        compared, wrong = check(folder, options)
    finally:
        disconnect()
    say("\n".join([*wrong, f"{compared} files compared, {len(wrong)} different"]))
    if wrong:
        say(f"what was written: {folder}")
    else:
        shutil.rmtree(folder)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
