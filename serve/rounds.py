"""Rounds that go on whatever happens in one: what answers requests must not end because a store blinked."""

from collections.abc import Callable
from typing import TypeVar

from serve import logs
from serve.database import LedgerDownError
from serve.experiment import ExperimentError
from serve.releases import ReleaseError
from serve.routing import RoutingConflictError

_FORESEEN = (LedgerDownError, RoutingConflictError, ExperimentError, ReleaseError)
"""Somebody else acted at the same moment, or the database is away: the sentences are ours, so they may be shown."""
_Found = TypeVar("_Found")


class Rounds:
    """Runs one round after the other.

    Args:
        say: Called with one line at the first error of each kind, and again after a round that went well.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._told: set[type[Exception]] = set()

    def run(self, one: Callable[[], _Found]) -> _Found | None:
        """Run a round; what it finds, or None where an error ended it."""
        try:
            found = one()
        except Exception as error:  # whatever it is, the next round may succeed
            if type(error) not in self._told:  # once a trouble, not once a second
                self._tell(error)
            self._told.add(type(error))
            return None
        self._told.clear()
        return found

    def _tell(self, error: Exception) -> None:
        if isinstance(error, _FORESEEN):
            self._say(str(error))
            return
        logs.failure(error, doing="a round of the keeper")
        where = logs.places(error)[-1]
        self._say(f"{type(error).__name__} at {where}: what runs goes on, and the next round tries again")
