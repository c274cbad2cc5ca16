"""The locked test of a bundle, opened once: its first reading is recorded in the registry, later ones are told of it.

A test that is read again and again, and acted on, becomes one more validation set. Nothing can stop a person from
reading it twice; the registry remembers what was read first, so that this is the figure that is quoted.
"""

from typing import Any

from ensemble.registry import Registry

EVENT = "locked_test"
FIGURES = ("n", "mae_months", "mae_ci95", "bias_months", "within_12_months")


def first_reading(registry: Registry, version: str, profile: str = "full") -> dict[str, Any] | None:
    """The change that recorded a bundle's locked test, as this profile answered it, or None while it is locked."""
    found = [change for change in registry.history() if change["event"] == EVENT and change["version"] == version]
    return next((change for change in found if change.get("profile", "full") == profile), None)


def note_reading(registry: Registry, report: dict[str, Any]) -> str:
    """Record the first reading of a bundle's locked test, and say what is there.

    Args:
        registry: That holds the bundle.
        report: What `ensemble.evaluate.evaluate` said of the locked test of the bundle's own cohort.

    Returns:
        A sentence for a person.
    """
    version, profile = report["bundle"], report["profile"]
    before = first_reading(registry, version, profile)
    if before is None:
        figures = {name: report[name] for name in FIGURES}
        registry.note({"event": EVENT, "version": version, "profile": profile, **figures})
        return f"The locked test of {version} is open now; its figures are recorded in {registry.path}."
    low, high = before["mae_ci95"]
    return (
        f"The locked test of {version} was opened before, on {before['time']}: {before['mae_months']:.2f} months "
        f"({low:.2f} to {high:.2f}), n = {before['n']}. That reading is the one to quote."
    )
