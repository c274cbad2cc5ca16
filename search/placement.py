"""How many trials a cluster trains at a time, and what each of them gets."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

Node = Mapping[str, float]
"""Resources of a machine by Ray's names, CPU and GPU among them."""


class StudyError(ValueError):
    """The study cannot be started or resumed as asked."""


@dataclass(frozen=True, kw_only=True)
class Compute:
    """Where a study runs; none of it changes what is searched."""

    address: str | None = None
    """Ray cluster to join; None starts Ray on this machine."""
    concurrent: int | None = None
    """Trials at a time; None fills the cluster's GPUs, or its CPUs where it has none."""
    gpus_per_trial: float | None = None
    """None: one where the cluster has any, else none. Fractions share a GPU."""
    hours: float | None = None
    """No trial begins that this time would cut off, and none goes past the fold it is in; `resume` continues."""
    cohort: str | None = None
    """Where the study's cohort is now; None: where it was. Its content must be the same."""
    storage: str | None = None
    """URL of the study's database with its password, which the study's folder does not hold; None: as written there."""


class Share(NamedTuple):
    """What trials get."""

    concurrent: int
    """Trials, or folds of them, at a time."""
    cpus: int
    """Of each."""
    gpus: float
    """Of each; below 1 it shares a GPU."""


def share_out(nodes: Sequence[Node], compute: Compute, *, num_folds: int) -> Share:
    """Divide a cluster among trials; each of them has to fit on one machine.

    A cluster that has scaled to zero shows no resources, so nothing can be derived from it.

    Args:
        nodes: Machines that the cluster has now.
        compute: What was asked for.
        num_folds: Of all trials together: as many workers can be at work at once.

    Raises:
        StudyError: The trials cannot be placed, or it cannot be known.
    """
    have_gpus = sum(node.get("GPU", 0.0) for node in nodes)
    gpus = min(1.0, have_gpus) if compute.gpus_per_trial is None else compute.gpus_per_trial
    if compute.address is None and gpus > have_gpus:
        raise StudyError(f"--gpus-per-trial {gpus:g} is asked for, and this machine has {have_gpus:g} GPUs.")
    fits = sum(_places(node, 1, gpus) for node in nodes)
    if compute.concurrent is None and fits == 0:
        raise StudyError(
            "The cluster shows no machine that trials could run on; it may grow when they ask. "
            "Say how: --concurrent N --gpus-per-trial G."
        )
    concurrent = compute.concurrent or min(fits, num_folds)
    at_once = max(1, min(concurrent, fits))
    largest = max((int(node.get("CPU", 0.0)) for node in nodes), default=0)
    enough = (cpus for cpus in range(largest, 1, -1) if sum(_places(node, cpus, gpus) for node in nodes) >= at_once)
    return Share(concurrent, next(enough, 1), gpus)


def _places(node: Node, cpus: int, gpus: float) -> int:
    """How many trials of so many CPUs and GPUs a machine holds; Ray gives no trial parts of two GPUs."""
    by_cpus, have_gpus = int(node.get("CPU", 0.0)) // cpus, node.get("GPU", 0.0)
    if not gpus:
        return by_cpus
    return min(by_cpus, int(have_gpus) * int(1 / gpus) if gpus < 1 else int(have_gpus / gpus))
