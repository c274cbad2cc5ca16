"""A search on three hosts against the same on one: ``python -m benchmarks.cluster [--minutes 20]``.

A head and two workers of one core each, hosts of their own on this machine (tests/cluster_hosts.py; root), are brought
up by ``ray up``, and a search begins at once. Then the same search on this machine itself, with as many trials at a
time. Every trial trains all its folds, so that both do the same; no trial begins that would not end in time.

Worker time is the trials at a time x the wall's time from the command to its end; training is what the finished folds
say that their steps took. The rest: Ray's start, imports, measuring and writing, waiting, and the end, in which no
further trial fits. All hosts share this machine's cores: the head's own work is at the workers' cost here.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.cluster_hosts import missing
from tests.conftest import ROOT
from tests.local_cluster import ON_GPUS, WORKERS, Cluster, cluster_of_hosts, tunnel


def prepared(folder: Path) -> Path:
    """A cohort of drawn hands."""
    source, cohort = folder / "drawn", folder / "cohort"
    for words in (
        ("phantom", source, "--cases", "400", "--seed", "1"),
        ("prepare", source, cohort, "--size", "96", "--folds", "3", "--test", "0.1"),
    ):
        _run("-m", "preprocessing", *words)
    return cohort


def share_of_training(study: Path, seconds: float) -> dict[str, Any]:
    """What of the workers' time went into training, by the finished folds."""
    records = [json.loads(path.read_text()) for path in study.glob("trials/*/fold_?.json")]
    trained = sum(record["run"]["seconds"] for record in records)
    return {
        "folds": len(records),
        "wall_s": round(seconds, 1),
        "training_s": round(trained, 1),
        "share": round(trained / (len(WORKERS) * seconds), 3),
    }


def on_hosts(cluster: Cluster, options: str) -> dict[str, Any]:
    """The search on the cluster, and the time from ``ray up`` to its first finished fold."""
    study, begin = cluster.study("study"), time.monotonic()
    began_at = time.time()
    up_s = cluster.up(wait=False)
    with tunnel(cluster):
        started = time.monotonic()
        run = "ray job submit -- python -m search run"
        with cluster.job(run, ("--trials 200", "--trials 1000"), (ON_GPUS, options)) as job:
            while not (folds := list(study.glob("trials/*/fold_?.json"))) and job.process.poll() is None:
                time.sleep(0.2)
            first_s = min(path.stat().st_mtime for path in folds) - began_at
            job.wait(timeout=3600)
        ended = time.monotonic()
    print(f"ray up {up_s:.0f} s, first fold {first_s:.0f} s, all {ended - begin:.0f} s", flush=True)
    return {
        "ray_up_s": round(up_s, 1),
        "first_fold_s": round(first_s, 1),
        **share_of_training(study, ended - started),
    }


def on_one(cohort: Path, study: Path, options: str) -> dict[str, Any]:
    """The search on this machine."""
    begin = time.monotonic()
    _run("-m", "search", "run", cohort, study, "--trials", 1000, *options.split())
    return share_of_training(study, time.monotonic() - begin)


def _run(*words: object) -> None:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, *map(str, words)], cwd=ROOT, env=environment, check=True, stderr=subprocess.DEVNULL)


def main() -> None:
    """Measure both, print the JSON line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cluster", description=__doc__)
    parser.add_argument("--minutes", type=float, default=20, help="of each search (default 20)")
    asked = parser.parse_args()
    if why := missing():
        parser.error(why)
    options = (
        f"--space quick --race none --screen off --seed 1 --concurrent {len(WORKERS)} --hours {asked.minutes / 60}"
    )
    with cluster_of_hosts() as cluster:
        cohort = prepared(cluster.hosts.store)
        hosts = on_hosts(cluster, options)
        with tempfile.TemporaryDirectory() as folder:
            one = on_one(cohort, Path(folder) / "study", options)
    machine = f"{os.cpu_count()} x {platform.machine()}, load {os.getloadavg()[0]:.1f}"
    print(json.dumps({"name": "cluster", "minutes": asked.minutes, "hosts": hosts, "one": one, "machine": machine}))


if __name__ == "__main__":
    main()
