"""Workers for `qpm sweep` and `qpm extract` on a cluster that is managed by SLURM (an example to be changed).

    pip install -e ".[cluster]" dask-jobqueue
    python data_scripts/slurm_workers.py --jobs 4 --gpus 1 --hours 12      # prints the address of its scheduler
    qpm sweep --profile cub --set data.root=... --out /shared/sweep --grid seed=0,1,2 --scheduler ADDRESS

Each job is one worker, which executes one chapter at a time with all cores of the job. Runs and cache (`QPM_CACHE`)
must lie in folders that all nodes share. Ctrl-C ends the jobs; a sweep that was on its way goes on with other ones.
`--show` prints the job script and submits nothing.
"""

import argparse
import logging
import os
import sys
import time

log = logging.getLogger("slurm_workers")


def main() -> None:
    """Submit the jobs, print the address, and wait."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--cores", type=int, default=8, help="of each job")
    parser.add_argument("--memory", default="32GB", help="of each job")
    parser.add_argument("--gpus", type=int, default=0, help="of each job: 0 or 1")
    parser.add_argument("--hours", type=int, default=4)
    parser.add_argument("--partition")
    parser.add_argument("--show", action="store_true", help="print the job script")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    try:
        from dask_jobqueue import SLURMCluster
    except ImportError as error:
        raise SystemExit("this needs dask-jobqueue: pip install dask-jobqueue") from error
    kept = {"QPM_CACHE": os.environ.get("QPM_CACHE", ""), "OMP_NUM_THREADS": str(arguments.cores)}
    cluster = SLURMCluster(
        queue=arguments.partition,
        cores=1,  # tasks at a time; the threads of a task are OMP_NUM_THREADS
        job_cpu=arguments.cores,
        processes=1,
        memory=arguments.memory,
        walltime=f"{arguments.hours:02d}:00:00",
        job_extra_directives=[f"--gres=gpu:{arguments.gpus}"] if arguments.gpus else [],
        job_script_prologue=[f"export {name}={value}" for name, value in kept.items() if value],
    )
    if arguments.show:
        log.info("%s", cluster.job_script())
        return
    cluster.scale(jobs=arguments.jobs)
    log.info("%s", cluster.scheduler_address)
    while True:
        time.sleep(60)


if __name__ == "__main__":
    main()
