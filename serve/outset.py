"""What a service goes by when it starts: routing and keys from the ledger, or as this machine read them last.

A machine that restarts while the database is away would otherwise answer nobody until that is back, though its gateway
could go on by what it remembers and keep every answer in the spool.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from serve.database import Database, LedgerDownError
from serve.keys import Keys
from serve.ledger import Ledger
from serve.remembered import Remembered, marks_before
from serve.routing import RoutingState
from serve.spool import num_left_before, num_waiting
from serve.succession import Given, start


@dataclass(frozen=True)
class Outset:
    """Where a service begins."""

    state: RoutingState
    has_keys: bool
    """Whether there is a key at all, ended ones among them."""
    outage: str = ""
    """What the database said, where it is away; then `state` and `has_keys` are as they were read last."""
    why: str = ""
    """Where ledger and given version differ: which of them answers, and why."""
    left: tuple[str, ...] = ()
    """What to do where answers wait that this service leaves alone: those of a release before that do not say whose
    ledger's they are, and those of a ledger that was at the same URL."""

    @classmethod
    def read(cls, database: Database, spool: Path, given: Given) -> "Outset":
        """From the ledger, in which it is written down who answers; else as remembered.

        Args:
            database: The ledger's.
            spool: Folder of the spools, in which a gateway of this machine remembers what it read.
            given: Version that answers where `serve.succession` finds for it; not while the database is away.

        Raises:
            RoutingConflictError: Somebody else changed the routing at the same moment.
            LedgerDownError: It does not answer, and no gateway of this machine has read from it before.
        """
        known = Remembered(spool, database.shown).read()
        try:
            state, why = start(database, given)
            left = _left(Ledger(database), known, spool)
            return cls(state, bool(Keys(database, "service").rows()), why=why, left=left)
        except LedgerDownError as error:
            if known is None:
                raise LedgerDownError(
                    f"{error}. Start it: this machine remembers nothing to go by meanwhile."
                ) from error
            left = _left(Ledger(database, known["pepper"]), known, spool)
            return cls(RoutingState.from_dict(known["state"]), bool(known["keys"]), str(error), left=left)


def _left(ledger: Ledger, known: Mapping[str, Any] | None, spool: Path) -> tuple[str, ...]:
    shown, own, sentences = ledger.database.shown, spool / ledger.mark, []
    if num_files := num_left_before(ledger, spool):
        sentences.append(
            f"{num_files} files of answers that a release before left in {spool} wait there: they do not say for which "
            f"ledger. Those for {shown} are to be moved to {own}"
        )
    for mark in marks_before(known, ledger):
        if num_entries := num_waiting(spool, mark):
            sentences.append(
                f"{num_entries} entries of answers wait in {spool / mark} for another ledger, which was at {shown} "
                "before: they go into no other by themselves. Restore it, under whatever URL, and start its service on "
                f"this machine; or move the files to {own}, where their subjects are not known again"
            )
    return tuple(sentences)
