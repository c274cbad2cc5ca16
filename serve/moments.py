"""Moments as the service writes them: UTC, ISO 8601, to the millisecond."""

from datetime import UTC, datetime


def moment(seconds: float) -> str:
    """``2026-01-31T12:00:00.000+00:00`` of Unix seconds."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")
