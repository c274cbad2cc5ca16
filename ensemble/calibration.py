"""What a bundle learnt about its own errors out of fold: its entry in the manifest."""

from typing import Any

_ENTRIES = {"intervals", "bias", "site", "sex"}


class CalibrationError(ValueError):
    """The calibration says something that this release does not know."""


def parse(content: Any) -> dict[str, Any] | None:
    """Check a manifest's ``calibration``.

    Args:
        content: An object with intervals, bias, site and sex, or None where none was fitted.

    Raises:
        CalibrationError: It is neither.
    """
    if content is None:
        return None
    if not isinstance(content, dict) or set(content) != _ENTRIES:
        raise CalibrationError(f"calibration must be null or have exactly {', '.join(sorted(_ENTRIES))}.")
    return content
