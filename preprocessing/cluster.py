"""Ray for every stage: how to connect to it, and preparation spread over its nodes.

Call `preprocessing.environment.prepare` before this module is imported.
"""

import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import ray

from preprocessing.environment import FOR_PROCESSES
from preprocessing.prepare import ChunkResult

OBJECT_STORE_BYTES = 512 * 1024 * 1024
"""Of a Ray of our own: what is on its way between processes. Without a limit Ray takes 30 % of the memory."""


def connection(
    address: str | None, settings: Mapping[str, str] = FOR_PROCESSES, modules: Sequence[str] = ()
) -> dict[str, Any]:
    """Arguments of `ray.init`: a private Ray on this machine that ends with this process, or a cluster to join.

    A Ray job brings its working directory along; any other driver uploads Carpal's own packages, so that workers
    run the code that the driver runs.

    Args:
        address: ``auto``, ``host:port`` or ``ray://…`` of a running cluster; None starts Ray here.
        settings: Environment of the workers of a joined cluster; those of our own inherit ours.
        modules: Paths of modules and packages of the user's own that workers need, too.
    """
    quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address is None:
        return quiet | {"address": "local", "include_dashboard": False, "object_store_memory": OBJECT_STORE_BYTES}
    code: dict[str, Any] = {"env_vars": dict(settings)}
    if "RAY_JOB_CONFIG_JSON_ENV_VAR" not in os.environ:
        root = Path(__file__).resolve().parents[1]
        code["py_modules"] = [str(root / name) for name in ("preprocessing", "search", "ensemble", "serve")]
        code["py_modules"] += modules
    return quiet | {"address": address, "runtime_env": code}


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
