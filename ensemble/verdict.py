"""The verdict of the gate, recorded with what it was judged by; and how an alias moves: through the gate alone.

A registry keeps the report of each examination under its hash. An alias moves by today's policy: the kept report is
judged again, so that a bundle examined under a milder policy does not pass under a stricter one.
"""

import hashlib
import json
from dataclasses import asdict
from typing import Any

from ensemble.gate import Policy, failures
from ensemble.registry import CHAMPION, AliasMoved, Registry, RegistryError
from preprocessing.storage import write_atomic

REPORTS = "gates"
"""Folder of a registry with the reports that its verdicts were judged by; figures alone, no radiograph."""
SCHEMA = 2
"""Of a report: what `ensemble.gate.failures` reads of it. A report of another one cannot be judged again. An
alteration that joins the suite makes no new one: of a report from before, the alterations that it has are judged."""


def encoded(report: dict[str, Any]) -> bytes:
    """The report as a file."""
    return (json.dumps(report, indent=1, allow_nan=False) + "\n").encode()


def recorded(registry: Registry, report: dict[str, Any]) -> list[str]:
    """Judge an examination by the registry's policy, keep its report under its hash, and note the verdict.

    Args:
        registry: Holds the bundle.
        report: From `ensemble.examination.examine`.

    Returns:
        What `ensemble.gate.failures` says.
    """
    content = encoded(report)
    sha256 = hashlib.sha256(content).hexdigest()
    write_atomic(registry.path / REPORTS / f"{sha256}.json", content)
    policy = Policy.of(registry)
    found = failures(report, policy)
    registry.note(
        {
            "event": "gate",
            "version": registry.version_of(report["version"]),
            "passed": not found,
            "failures": found,
            "policy": asdict(policy),
            "report_sha256": sha256,
            "source": report["source"],
            "num_cases": report["n"],
            "against": report["standing"]["champion"],
        }
    )
    return found


def claim(registry: Registry, version: str, alias: str) -> str:
    """Give an alias that points to nothing yet to a bundle; one that points somewhere moves by `promote` alone.

    Returns:
        The version that the alias points to now.
    """
    try:
        registry.set_alias(alias, version, expected=None, note={"gate": "none: the alias is new"})
    except AliasMoved:
        return registry.aliases()[alias]
    return version


def promote(registry: Registry, name: str, alias: str, *, regardless: str = "") -> tuple[str, str | None]:
    """Move an alias to a bundle that has passed the gate, beside the bundle that the alias points to.

    Args:
        registry: Where both are.
        name: Version or alias of the bundle.
        alias: What moves.
        regardless: Why it moves although the gate was not passed; it is recorded with the move. Empty: it does not.

    Returns:
        The version that the alias points to now, and the one before.

    Raises:
        RegistryError: The bundle was never put under stress, or failed, or fails by today's policy, or was compared
            with another bundle than the one whose place it takes, and no reason was given; or there is none.
        AliasMoved: Somebody else moved it in the meantime.
    """
    version, before = registry.version_of(name), registry.aliases().get(alias)
    missing = _missing(registry, version, alias, before)
    if missing and not regardless:
        raise RegistryError(
            f"{version} may not become {alias}, for it has not passed the gate: {missing.rstrip('.')}. "
            "--regardless REASON moves it all the same, and is recorded."
        )
    note: dict[str, Any] = {"gate": "not passed" if missing else "passed"}
    registry.set_alias(alias, version, expected=before, note=note | ({"regardless": regardless} if regardless else {}))
    return version, before


def _missing(registry: Registry, version: str, alias: str, before: str | None) -> str:
    """What keeps a bundle from taking the place of another; nothing where it has passed."""
    command = f"python -m ensemble stress {registry.path}@{version} SOURCE"
    if alias != CHAMPION and before:
        command += f" --against {alias}"
    verdict = next((c for c in reversed(registry.history()) if c["event"] == "gate" and c["version"] == version), None)
    if verdict is None:
        return f"it has not been put under stress: run {command}"
    if not verdict["passed"]:
        return "it failed: " + " ".join(verdict["failures"])
    report = _kept(registry, verdict["report_sha256"])
    if report is None:
        return f"the report of its examination is not kept, or of an older release: run {command}"
    if found := failures(report, Policy.of(registry)):
        return "it passed by the policy of then, and fails by today's: " + " ".join(found)
    if before not in (None, version, verdict.get("against")):
        compared = verdict.get("against") or "no other bundle"
        return f"it was compared with {compared}, and {alias} is {before}: run {command}"
    return ""


def _kept(registry: Registry, sha256: str) -> dict[str, Any] | None:
    """The report that a verdict was judged by; None where it is gone, changed, or of a schema that is not judged."""
    try:
        content = (registry.path / REPORTS / f"{sha256}.json").read_bytes()
    except FileNotFoundError:
        return None
    if hashlib.sha256(content).hexdigest() != sha256:
        return None
    report: dict[str, Any] = json.loads(content)
    return report if report.get("schema") == SCHEMA else None
