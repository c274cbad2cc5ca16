"""Ray for every stage: how to connect to it, and preparation spread over its nodes."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

# Set before Ray is imported: it reads them then. Carpal never reports usage, and a Ray that listens on loopback
# only needs no token; on a cluster, cluster.yaml chooses the token mode for every process.
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_AUTH_MODE", "disabled")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
# Trials share the cores: a thread that spins while it waits for another one takes the core from a third.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import ray

from preprocessing.prepare import ChunkResult

_PACKAGES = ("preprocessing", "search", "ensemble", "serve")


def connect(address: str | None = None, *, num_cpus: int | None = None) -> None:
    """Start a private Ray on this machine's loopback address, or join a cluster.

    A Ray job brings its working directory along; any other driver uploads Carpal's own packages, so that workers
    run the code that the driver runs.

    Args:
        address: ``auto``, ``host:port`` or ``ray://…`` of a running cluster; None starts Ray here, until this
            process ends.
        num_cpus: Logical CPUs of the private Ray; by default as many as the machine has.

    Raises:
        ConnectionError: No cluster answers at the address.
    """
    if address is None:
        ray.init(
            address="local",
            num_cpus=num_cpus,
            include_dashboard=False,
            log_to_driver=False,
            logging_level="ERROR",
            _node_ip_address="127.0.0.1",
        )
        return
    in_job = "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ
    root = Path(__file__).resolve().parents[1]
    code = None if in_job else {"py_modules": [str(root / name) for name in _PACKAGES]}
    ray.init(address=address, runtime_env=code, log_to_driver=False, logging_level="ERROR")


def ray_map(function: Callable[[list[str]], ChunkResult], chunks: list[list[str]]) -> Iterator[ChunkResult]:
    """Run chunks as Ray tasks on the connected cluster, results in order.

    At most four chunks a CPU are under way, so that finished pixels do not pile up in the object store.
    """
    task = ray.remote(num_cpus=1, max_retries=3)(lambda chunk: function(chunk))
    ahead = max(4, 4 * int(ray.cluster_resources().get("CPU", 1)))
    waiting: list = [task.remote(chunk) for chunk in chunks[:ahead]]
    for index in range(len(chunks)):
        yield ray.get(waiting[index])
        waiting[index] = None  # frees the pixels in the object store
        if index + ahead < len(chunks):
            waiting.append(task.remote(chunks[index + ahead]))
