"""The whole examination that the gate judges: the stress test of a bundle, and how it stands beside another."""

import hashlib
import json
from collections.abc import Callable
from typing import Any

from ensemble.alterations import suite
from ensemble.bundle import Bundle
from ensemble.gate import record
from ensemble.predictor import Predictor
from ensemble.registry import Registry
from ensemble.standing import standing
from ensemble.stress import stress
from ensemble.subjects import bundle_subject
from preprocessing.progress import counting
from preprocessing.source import Source
from preprocessing.storage import write_atomic

REPORTS = "gates"
"""Folder of a registry with the reports that its verdicts were judged by; figures alone, no radiograph."""


def examine(
    bundle: Bundle,
    champion: Bundle | None,
    source: Source,
    *,
    num_cases: int = 100,
    seed: int = 0,
    device: str = "cpu",
    progress: Callable[[str], Callable[[int, int], None]] = counting,
) -> dict[str, Any]:
    """Put a bundle under stress, and compare it with the one whose place it may take.

    Args:
        bundle: Examined.
        champion: Whose place it may take; None where there is none, or it is the same.
        source: Labelled radiographs that neither was trained on.
        num_cases: Of the stress test; the comparison takes more, see `ensemble.standing`.
        seed: Of every draw.
        device: ``cpu`` or a CUDA device.
        progress: Makes a progress line of what is counted.

    Returns:
        What `ensemble.stress.stress` returns, and ``subject``, ``version``, ``standing``.

    Raises:
        StressError: No case is answered as it is.
    """
    predictor = Predictor(bundle, device)
    other = None if champion is None or champion.version == bundle.version else Predictor(champion, device)
    show = progress("radiographs answered")
    found = {"standing": standing(predictor, other, source, seed=seed, progress=show)}
    show = progress("cases put under stress")
    report = stress(bundle_subject(predictor), source, suite(), num_cases=num_cases, seed=seed, progress=show)
    return {"subject": bundle.version, "version": bundle.version, **report, **found}


def encoded(report: dict[str, Any]) -> bytes:
    """The report as a file."""
    return (json.dumps(report, indent=1, allow_nan=False) + "\n").encode()


def recorded(registry: Registry, report: dict[str, Any]) -> list[str]:
    """Keep a report in the registry under its hash, and note the verdict on it; returns `ensemble.gate.failures`."""
    content = encoded(report)
    sha256 = hashlib.sha256(content).hexdigest()
    write_atomic(registry.path / REPORTS / f"{sha256}.json", content)
    return record(registry, report["version"], report, sha256)
