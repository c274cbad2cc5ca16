"""What a rule about cluster files says, and what it is told."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from search.cluster.file import ClusterFile


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that a rule noticed."""

    code: str
    """Name of the trap, such as ``nightly``."""
    sentence: str
    """What is wrong, where, and what to write instead."""
    is_fault: bool = True


@dataclass(frozen=True, kw_only=True)
class Expected:
    """What the file has to fit."""

    ray_version: str
    """The lock file's."""
    gpus_per_trial: float
    """0 for trials on the CPU."""
    gpus_of: dict[str, int]
    """GPUs of each instance type that the price table knows."""


Rule = Callable[[ClusterFile, Expected], Iterator[Finding]]
