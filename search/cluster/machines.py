"""Rules about machines: whether trials find one, and whether they find only what they should."""

from collections.abc import Iterator
from typing import Any

import yaml

from search.cluster.file import ClusterFile, Pool, option
from search.cluster.findings import Expected, Finding


def head_trials(file: ClusterFile, expected: Expected) -> Iterator[Finding]:
    if file.head.cpus != 0 or file.head.gpus:
        have = "all that it has" if file.head.cpus is None else f"{file.head.cpus} CPUs, {file.head.gpus or 0} GPUs"
        write = {
            "local": "ray start --head --num-cpus=0 --num-gpus=0",
            "kuberay": 'headGroupSpec.rayStartParams: {num-cpus: "0"}',
        }.get(file.provider, "resources: {CPU: 0} in the head's node type")
        yield Finding(
            code="head-trials",
            sentence=f"The head offers {have} to trials, which crowd out the driver and the dashboards. Write {write}.",
        )
    if file.head.is_spot:
        yield Finding(
            code="head-spot",
            sentence="The head is a spot machine: with it go the driver and the whole cluster. Take it on demand.",
        )


def scheduling(file: ClusterFile, expected: Expected) -> Iterator[Finding]:
    wanted = expected.gpus_per_trial
    for pool in file.pools:
        has = expected.gpus_of.get(pool.instance)
        if has is not None and pool.gpus is not None and pool.gpus > has:
            yield Finding(
                code="unschedulable",
                sentence=f"{pool.name} promises {pool.gpus} GPUs on {pool.instance}, which has {has}: the pool grows "
                "and the trials still wait.",
            )
        if pool.least > pool.most:
            yield Finding(
                code="unschedulable",
                sentence=f"{pool.name}: min_workers <= max_workers must hold, but got {pool.least} and {pool.most}.",
            )
    total = file.raw.get("max_workers")
    least = sum(pool.least for pool in file.pools)
    if isinstance(total, int) and least > total:
        yield Finding(
            code="unschedulable",
            sentence=f"max_workers {total} must be at least the sum of all min_workers, {least}.",
        )
    if not any(places(pool, wanted, expected.gpus_of) for pool in file.pools):
        need = f"{wanted:g} GPU and 1 CPU" if wanted else "1 CPU"
        yield Finding(
            code="unschedulable",
            sentence=f"No pool can ever hold a trial, which takes {need}: a search would wait for ever. Its pools: "
            f"{', '.join(_described(pool) for pool in file.pools) or 'none'}.",
        )


def places(pool: Pool, gpus_per_trial: float, gpus_of: dict[str, int]) -> int:
    """How many trials at a time all machines of a pool hold; a trial on a GPU takes one core besides."""
    cpus = pool.cpus
    gpus = min(pool.gpus if pool.gpus is not None else 10**6, gpus_of.get(pool.instance, 10**6))
    if cpus is None:  # the machine's own count, which the file does not say
        cpus = 10**6
    if gpus_per_trial == 0:
        each = min(cpus, 1) if cpus == 10**6 else cpus
    elif gpus == 10**6:  # likewise: at least one trial, if it has what it is bought for
        each = min(1, cpus)
    else:
        share = gpus // gpus_per_trial if gpus_per_trial > 1 else gpus * int(1 / gpus_per_trial)
        each = min(int(share), cpus)
    return each * pool.most


def _described(pool: Pool) -> str:
    def said(count: int | None, what: str) -> str:
        return f"its own {what}s" if count is None else f"{count} {what}"

    return f"{pool.name} (up to {pool.most}, {said(pool.cpus, 'CPU')}, {said(pool.gpus, 'GPU')})"


def driver(file: ClusterFile, expected: Expected) -> Iterator[Finding]:
    if file.provider != "aws":
        return
    for pool in (file.head, *file.pools):
        image = str(pool.node_config.get("ImageId", ""))
        if pool.gpus and image.lower() in ("", "latest_dlami"):
            yield Finding(
                code="driver",
                sentence=f"{pool.name} has no ImageId: Ray's default is of 2022, with CUDA 11.2, and PyTorch finds no "
                "GPU. Name a newer one (cluster.yaml has it).",
            )


def autoscaler(file: ClusterFile, expected: Expected) -> Iterator[Finding]:
    if file.provider == "local" and "RAY_enable_autoscaler_v2=0" not in file.head_start:
        yield Finding(
            code="autoscaler",
            sentence="Version 2 of the autoscaler counts the head among these workers, and one of them never starts. "
            "Write RAY_enable_autoscaler_v2=0 directly before ray start --head.",
        )
    if file.provider != "kuberay" and file.head_start and option(file.head_start, "autoscaling-config") is None:
        yield Finding(
            code="autoscaler",
            sentence="ray start --head has no --autoscaling-config=~/ray_bootstrap_config.yaml: no worker ever comes.",
        )
    spec: Any = file.raw.get("spec") or {}
    grows = "enableInTreeAutoscaling: true" in yaml.safe_dump(spec)
    if file.provider == "kuberay" and not grows and not any(pool.least for pool in file.pools):
        yield Finding(
            code="autoscaler",
            sentence="No worker is there at first and none is ever added. Write enableInTreeAutoscaling: true.",
        )
