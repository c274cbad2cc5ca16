"""The locked test of a cohort: this stage hands it out here alone, and notes each reading before it happens.

A test that is read again and again, and acted on, becomes one more validation set. Nothing can stop a person from
reading it twice, or from building forty versions and keeping the one that reads best. So the registry that a bundle
lies in counts the readings of each cohort's test, whichever command asks and whichever version answers, and every
report says which reading it is. The figures of a version's first evaluation are kept: they are the ones to quote,
unless something else of the version had been read on the test before, such as its stress test; then that is said.

    {"event": "locked_test", "version", "profile", "cohort", "command", "purpose"}       before a row is handed out
    {"event": "locked_test_figures", "version", "profile", "cohort", "n", "mae_months", ...}  of a first evaluation

Records from before name no cohort and hold the figures themselves: a version's own cohort is meant. Not counted are
single cases, of which ``python -m serve.ask --cohort`` asks a service, the scripts below ``benchmarks``, and
``explain``, which is not given the references of locked cases (`without_references`).
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ensemble.answers import EvaluationError
from ensemble.bundle import MARKER, Bundle
from ensemble.changes import Change
from ensemble.printed import between
from ensemble.registry import Registry, registry_around
from ensemble.unseen import is_locked_test, locked, salted
from preprocessing.cohort import MARKER as COHORT_MARKER
from preprocessing.cohort import Cohort
from preprocessing.source import Source, problem_table
from preprocessing.sources import SourceOptions, read_source
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
    rows = _rows(cohort)
    return rows, note_reading(cohort.hash, bundle, command=command, purpose=purpose, profile=profile)


def open_source(
    source: str, options: SourceOptions, subjects: Sequence[Bundle | None], *, command: str, purpose: str
) -> tuple[Source, list[str]]:
    """Find labelled pictures; of a cohort the files of its locked test, once each reading of it is noted.

    A reading of a folder is noted too where most of its cases are those of a bundle's locked test.

    Args:
        source: Labelled pictures in any layout, or a cohort.
        options: What looking at the pictures does not show.
        subjects: The bundles that will be asked; None for a service, whose readings no registry counts.
        command: That asks, and for what ``purpose``, as `open_test` has them.

    Returns:
        The pictures, and what to tell a person: a sentence a subject; nothing where the source is no locked test.

    Raises:
        EvaluationError: The cohort locks no test split.
        StorageError: The cohort was changed after it was prepared.
        SourceError: The folder is in no known layout.
        OSError: A registry cannot be written to; then nothing is handed out.
    """
    folder = as_path(source)
    if not (folder / COHORT_MARKER).exists():
        found = read_source(folder, options)
        owners = [bundle for bundle in subjects if bundle is not None and is_locked_test(bundle, found)]
        read = [(bundle.manifest["provenance"]["cohort_hash"], bundle) for bundle in owners]
        return found, [note_reading(own, bundle, command=command, purpose=purpose)["says"] for own, bundle in read]
    cohort = Cohort.load(folder)
    cases = cohort.cases.iloc[_rows(cohort)].reset_index(drop=True)
    noted = [note_reading(cohort.hash, bundle, command=command, purpose=purpose) for bundle in subjects]
    return Source(as_path(cohort.source), cases, problem_table([])), [reading["says"] for reading in noted]


def unlabelled(cohort: Cohort, most: int) -> np.ndarray:
    """Row numbers of pictures of the locked test, spread over it, for whoever asks nothing of their references.

    That is no reading of the test, and is not noted. Pictures and sexes may be looked at, bone ages not.

    Args:
        cohort: Whose test; every byte of it is checked.
        most: Pictures at most.

    Returns:
        ``(N,)`` int; empty where the cohort locks no test split.

    Raises:
        StorageError: The cohort was changed after it was prepared.
    """
    cohort.verify()
    rows = cohort.test_rows()
    return rows[np.linspace(0, len(rows) - 1, min(most, len(rows))).astype(int)]


def without_references(source: Source, bundle: Bundle) -> tuple[Source, str]:
    """Take the references of a bundle's locked test out of labelled pictures, for whoever can do without them.

    What then becomes of the pictures is no reading of the test, and is not noted.

    Args:
        source: Labelled pictures, some of which may be of the locked test: see `ensemble.unseen.locked`.
        bundle: That will be asked.

    Returns:
        The pictures, with NaN for the bone age of a locked case; and a sentence for a person, empty where none is.
    """
    is_locked_C = locked(bundle, source)
    if not is_locked_C.any():
        return source, ""
    says = (
        f"{int(is_locked_C.sum())} of {len(is_locked_C)} cases are of the locked test of {bundle.version}'s cohort. "
        "Their references are left out, so that this is no reading of it."
    )
    known = source.cases["bone_age_months"].mask(is_locked_C)
    return replace(source, cases=source.cases.assign(bone_age_months=known)), says


def names(cohort: Cohort) -> dict[str, Any]:
    """What `ensemble.unseen.LOCKED_FILE` holds: by what a folder with cases of the locked test is known again."""
    return salted(cohort.cases.iloc[cohort.test_rows()], cohort.hash)


def note_reading(
    cohort_hash: str, bundle: Bundle | None, *, command: str, purpose: str, profile: str = "full"
) -> dict[str, Any]:
    """Note that a cohort's locked test is about to be read; for other arguments see `open_test`, which calls it.

    Returns:
        What is known of the reading as JSON values: ``cohort``, ``recorded``, ``says`` (a sentence for a person), and
        where it was recorded ``reading`` (which one of this test it is, counted in this registry), ``versions`` (how
        many have read it), ``first`` (the figures that were kept of this version and profile, or None) and
        ``without_figures`` (how many readings by this version came before any figures were kept).

    Raises:
        OSError: The registry cannot be written to.
    """
    registry = None if bundle is None else registry_around(bundle)
    if bundle is None or registry is None:
        return {"cohort": cohort_hash, "recorded": False, "says": _not_recorded(cohort_hash, bundle)}
    asked = {"version": bundle.version, "profile": profile, "cohort": cohort_hash}
    first = first_figures(registry, **asked)
    mine = [change for change in readings(registry, cohort_hash) if change["version"] == bundle.version]
    silent = _without_figures(mine, first)
    registry.note({"event": READ, **asked, "command": command, "purpose": purpose})
    before = readings(registry, cohort_hash)
    versions = {change["version"] for change in before}
    about = {"reading": len(before), "versions": len(versions), "first": first, "without_figures": len(silent)}
    said = _recorded(cohort_hash, len(before), len(versions)) + _read_before(bundle.version, first, silent)
    return {"cohort": cohort_hash, "recorded": True, **about, "says": said}


def keep_figures(bundle: Bundle, report: dict[str, Any]) -> None:
    """Keep what a version's first evaluation found, beside the note of it; later ones leave it alone.

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
    """The change with the figures of a version's first evaluation on a cohort's test by one profile, or None."""
    for change in registry.history():
        is_asked = change["event"] in (READ, FOUND) and "mae_months" in change and change["version"] == version
        if is_asked and change.get("profile", "full") == profile and _is_of(registry, change, cohort):
            return change
    return None


def _is_of(registry: Registry, change: Change, cohort_hash: str) -> bool:
    """Whether a reading was of this cohort; an old one of a version that is gone counts: nothing says otherwise."""
    if "cohort" in change:
        return bool(change["cohort"] == cohort_hash)
    manifest = registry.folder_of(change["version"]) / MARKER
    return not manifest.exists() or bool(read_json(manifest)["provenance"]["cohort_hash"] == cohort_hash)


def _rows(cohort: Cohort) -> np.ndarray:
    """Of the locked test of a cohort that is as it was prepared."""
    cohort.verify()
    rows = cohort.test_rows()
    if not len(rows):
        raise EvaluationError(
            f"The cohort {cohort.hash[:12]} locks no test split. Prepare it with --test above 0, or name other cases."
        )
    return rows


def _without_figures(mine: list[Change], first: Change | None) -> list[Change]:
    """Of a version's readings those from before its first figures were kept."""
    if first is None:
        return mine
    earlier = [change for change in mine if change["number"] < first["number"]]
    return earlier[:-1] if first["event"] == FOUND else earlier  # the last is the one that the figures are of


def _recorded(cohort_hash: str, reading: int, versions: int) -> str:
    said = f"Reading {reading} of this cohort's locked test ({cohort_hash[:12]}), by {versions} version"
    if versions == 1:
        return f"{said} of this registry."
    return (
        f"{said}s of this registry. It no longer tells how good a version is that was chosen by such readings: measure "
        "that on new cases."
    )


def _read_before(version: str, first: Change | None, silent: list[Change]) -> str:
    """Which figures of a version are to be quoted; nothing where it was never read."""
    said = ""
    if first:
        said = (
            f" {version} was read on it before, on {first['time']}: {first['mae_months']:.2f} months "
            f"({between(first['mae_ci95'])}), n = {first['n']}."
        )
        if not silent:
            return f"{said} That reading is the one to quote."
        said += " Those are the first figures that were kept, and not of its first reading:"
    if silent:
        oldest, count = silent[0], "once" if len(silent) == 1 else f"{len(silent)} times"
        said += (
            f" {version} had been read on it {count} before, without figures that were kept of this profile, first by "
            f"{oldest.get('command', 'an older release')} on {oldest['time']}."
        )
    return said


def _not_recorded(cohort_hash: str, bundle: Bundle | None) -> str:
    said = f"This reading of the cohort's locked test ({cohort_hash[:12]}) could not be recorded: "
    if bundle is None:
        return said + "predictions of another system or service lie in no registry. Keep count of them yourself."
    return said + (
        f"{bundle.version} was named by a folder that lies in no registry. Name it as REGISTRY@VERSION, so that its "
        "readings are counted."
    )
