"""The locked test of a cohort: handed out here alone, and each reading is noted before it happens.

A test that is read again and again, and acted on, becomes one more validation set. Nothing can stop a person from
reading it twice, or from building forty versions and keeping the one that reads best. So the registry that a bundle
lies in counts the readings of each cohort's test, whichever command asks and whichever version answers, and every
report says which reading it is. The figures of a version's first reading are kept: they are the ones to quote.

    {"event": "locked_test", "version", "profile", "cohort", "command", "purpose"}       before a row is handed out
    {"event": "locked_test_figures", "version", "profile", "cohort", "n", "mae_months", ...}     of a first reading

Records from before name no cohort and hold the figures themselves: a version's own cohort is meant.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from ensemble.answers import EvaluationError
from ensemble.bundle import MARKER, Bundle
from ensemble.changes import Change
from ensemble.printed import between
from ensemble.registry import Registry
from preprocessing.cohort import MARKER as COHORT_MARKER
from preprocessing.cohort import Cohort
from preprocessing.storage import as_path, read_json

READ, FOUND = "locked_test", "locked_test_figures"
FIGURES = ("n", "mae_months", "mae_ci95", "bias_months", "within_12_months")


def open_test(
    cohort: Cohort, bundle: Bundle | None, *, command: str, purpose: str, profile: str = "full"
) -> tuple[np.ndarray, dict[str, Any]]:
    """Note that a cohort's locked test is read, then hand out its rows.

    Args:
        cohort: Whose test is read; every byte of it is checked.
        bundle: That will answer; None where another system did.
        command: That asks, such as ``evaluate``.
        purpose: What is done with the answers, for whoever reads the registry's history.
        profile: Which members will answer.

    Returns:
        ``(N,)`` int row numbers of the cohort, and what `note_reading` says.

    Raises:
        EvaluationError: The cohort locks no test split.
        StorageError: The cohort was changed after it was prepared.
        OSError: The registry cannot be written to; then nothing is handed out.
    """
    cohort.verify()
    rows = cohort.test_rows()
    if not len(rows):
        raise EvaluationError(
            f"The cohort {cohort.hash[:12]} locks no test split. Prepare it with --test above 0, or name other cases."
        )
    return rows, note_reading(cohort.hash, bundle, command=command, purpose=purpose, profile=profile)


def note_reading(
    cohort_hash: str, bundle: Bundle | None, *, command: str, purpose: str, profile: str = "full"
) -> dict[str, Any]:
    """Note that a cohort's locked test is about to be read; for other arguments see `open_test`, which calls it.

    Returns:
        What is known of the reading as JSON values: ``cohort``, ``recorded``, ``says`` (a sentence for a person), and
        where it was recorded ``reading`` (which one of this test it is, counted in this registry), ``versions`` (how
        many have read it) and ``first`` (the figures of this version's first reading, or None).

    Raises:
        OSError: The registry cannot be written to.
    """
    registry = None if bundle is None else registry_around(bundle)
    if bundle is None or registry is None:
        return {"cohort": cohort_hash, "recorded": False, "says": _not_recorded(cohort_hash, bundle)}
    asked = {"version": bundle.version, "profile": profile, "cohort": cohort_hash}
    first = first_figures(registry, **asked)
    registry.note({"event": READ, **asked, "command": command, "purpose": purpose})
    before = readings(registry, cohort_hash)
    about = {"reading": len(before), "versions": len({change["version"] for change in before}), "first": first}
    return {"cohort": cohort_hash, "recorded": True, **about, "says": _recorded(bundle.version, cohort_hash, about)}


def note_source(source: str, bundles: Sequence[Bundle], *, command: str, purpose: str) -> list[str]:
    """Note a reading by each bundle where the labelled cases that they will be asked for are a cohort's locked test.

    Returns:
        What to tell a person: a sentence a bundle; nothing where the source is no cohort.
    """
    marker = as_path(source) / COHORT_MARKER
    if not marker.exists():
        return []
    cohort_hash = read_json(marker)["hash"]
    return [note_reading(cohort_hash, bundle, command=command, purpose=purpose)["says"] for bundle in bundles]


def keep_figures(bundle: Bundle, report: dict[str, Any]) -> None:
    """Keep what a version's first reading found, beside the note of it; later ones leave it alone.

    Args:
        bundle: That answered.
        report: Of `ensemble.evaluate.evaluate`, with what `open_test` said of the reading under ``locked_test``.
    """
    reading, registry = report["locked_test"], registry_around(bundle)
    if registry is not None and reading["recorded"] and reading["first"] is None:
        asked = {"version": bundle.version, "profile": report["profile"], "cohort": reading["cohort"]}
        registry.note({"event": FOUND, **asked, **{name: report[name] for name in FIGURES}})


def readings(registry: Registry, cohort_hash: str) -> list[Change]:
    """Every noted reading of a cohort's locked test, oldest first."""
    return [
        change for change in registry.history() if change["event"] == READ and _is_of(registry, change, cohort_hash)
    ]


def first_figures(registry: Registry, version: str, profile: str, cohort: str) -> Change | None:
    """The change with the figures of a version's first reading of a cohort's test by one profile, or None."""
    for change in registry.history():
        is_asked = change["event"] in (READ, FOUND) and "mae_months" in change and change["version"] == version
        if is_asked and change.get("profile", "full") == profile and _is_of(registry, change, cohort):
            return change
    return None


def registry_around(bundle: Bundle) -> Registry | None:
    """The registry that a bundle lies in, however it was named; None where it lies in none."""
    folder = as_path(bundle.location or str(bundle.folder))
    registry = folder.parent.parent
    version = folder.name.partition(".")[0]  # what was removed and published again lies in ens-....2
    is_inside = version == bundle.version and folder.parent.name == "bundles" and (registry / "changes").exists()
    return Registry(registry) if is_inside else None


def _is_of(registry: Registry, change: Change, cohort_hash: str) -> bool:
    """Whether a reading was of this cohort; an old one of a version that is gone counts: nothing says otherwise."""
    if "cohort" in change:
        return bool(change["cohort"] == cohort_hash)
    manifest = registry.path / "bundles" / change["version"] / MARKER
    return not manifest.exists() or bool(read_json(manifest)["provenance"]["cohort_hash"] == cohort_hash)


def _recorded(version: str, cohort_hash: str, about: dict[str, Any]) -> str:
    said = (
        f"Reading {about['reading']} of this cohort's locked test ({cohort_hash[:12]}), by {about['versions']} "
        f"version{'s' if about['versions'] > 1 else ''} of this registry."
    )
    if first := about["first"]:
        said += (
            f" {version} was read on it before, on {first['time']}: {first['mae_months']:.2f} months "
            f"({between(first['mae_ci95'])}), n = {first['n']}. That reading is the one to quote."
        )
    if about["versions"] > 1:
        said += " It no longer tells how good a version is that was chosen by such readings: measure that on new cases."
    return said


def _not_recorded(cohort_hash: str, bundle: Bundle | None) -> str:
    said = f"This reading of the cohort's locked test ({cohort_hash[:12]}) could not be recorded: "
    if bundle is None:
        return said + "predictions of another system lie in no registry. Keep count of such readings yourself."
    return said + (
        f"{bundle.version} was named by a folder that lies in no registry. Name it as REGISTRY@VERSION, so that its "
        "readings are counted."
    )
