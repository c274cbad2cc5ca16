"""Moments as the service writes them, in UTC."""

from datetime import UTC, datetime


def moment(seconds: float) -> str:
    """``2026-01-31T12:00:00.000+00:00`` of Unix seconds."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")


def moment_in_words(seconds: float) -> str:
    """``2026-01-31 12:00:00Z`` of Unix seconds, for a terminal."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%SZ")
