"""`qpm extract`: the features of a run, on several processes or machines."""

import argparse

from qpm_lib.cli.output import pairs, show
from qpm_lib.cli.run import with_whole_paths

NAME, SHORT = "extract", "compute features, on several processes or machines"
DESCRIPTION = """Computes the features that a run with the same settings would compute first, a shard at a time on each
worker, into the cache folder; runs and sweeps then find them there. Shards that are whole are not computed again. On
several machines the cache folder (QPM_CACHE) must be shared."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what the command takes."""
    parser.description = DESCRIPTION
    parser.add_argument("--profile", default="toy", metavar="NAME", help="settings to start from (default: toy)")
    change = "change a setting; may be given more than once"
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="settings", help=change)
    where = parser.add_mutually_exclusive_group()
    processes = "processes on this machine, which share its cores (default: 2)"
    where.add_argument("--workers", type=int, default=2, metavar="N", help=processes)
    where.add_argument("--scheduler", metavar="ADDRESS", help="of dask.distributed, for example tcp://host:8786")


def execute(arguments: argparse.Namespace) -> int:
    """Run the command."""
    from qpm_lib.core import load_profile, make_cache_folder
    from qpm_lib.runs import check_inputs
    from qpm_lib.sweep import extract_features, start_workers

    config = load_profile(arguments.profile, **with_whole_paths(pairs(arguments.settings, "--set")))
    check_inputs(config)
    options = {"scheduler": arguments.scheduler, "folders": [make_cache_folder().resolve()], "device": config.device}
    with start_workers(arguments.workers, **options) as workers:
        show(f"{workers.count} workers with {workers.threads} threads each")
        store = extract_features(config, workers, on_shard=_tell)
    size = f"{len(store)} pictures, {store.n_patches} patches of {store.width} numbers, {store.nbytes / 1e9:.2f} GB"
    show(f"{store.folder}: {size}")
    return 0


def _tell(name: str, number: int, count: int) -> None:
    show(f"[{number}/{count}] {name}")
