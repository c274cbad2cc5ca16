"""What a gateway last read from the ledger, on this machine's own disk: a gateway may start while the database is away.

It then goes by the routing and the keys as they stood, which is what a gateway does that was running when the database
went. The file lies beside the spools, one for each ledger by the name that it goes by, readable to its owner alone: it
holds the ledger's secret, without which subjects could not be given their pseudonyms.
"""

import contextlib
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from preprocessing.storage import written_beside
from serve.ledger import Ledger

_BEFORE = "last.json"  # of all ledgers, in releases before


def marks_before(known: Mapping[str, Any] | None, ledger: Ledger) -> list[str]:
    """Marks of the ledgers that went by the name of this one before it, as when a database is lost and begun anew.

    Args:
        known: What is remembered under that name; None where nothing is.
        ledger: The present one.
    """
    if known is None:
        return []
    last = Ledger(ledger.database, known["pepper"]).mark
    return [mark for mark in dict.fromkeys([*known.get("before", []), last]) if mark != ledger.mark]


class Remembered:
    """The last reading of one ledger.

    Args:
        folder: Of the spools of all ledgers.
        ledger: Name of the ledger, without its password; what was read from another one does not count.
    """

    def __init__(self, folder: Path, ledger: str) -> None:
        name = f"last-{hashlib.sha256(ledger.encode()).hexdigest()[:12]}.json"
        self._path, self._before, self._ledger = folder / name, folder / _BEFORE, ledger
        self._written: bytes | None = None

    def read(self) -> dict[str, Any] | None:
        """What was written; None where there is nothing, or only what another ledger said."""
        return self._values_in(self._path) or self._values_in(self._before)

    def write(self, values: Mapping[str, Any]) -> None:
        """Keep plain JSON values, unless they were written last; a full disk keeps the ones before."""
        data = json.dumps({"ledger": self._ledger, "values": dict(values)}).encode()
        if data == self._written:
            return
        with contextlib.suppress(OSError), written_beside(self._path, data) as temporary:
            temporary.chmod(0o600)
            temporary.replace(self._path)
            self._written = data

    def _values_in(self, path: Path) -> dict[str, Any] | None:
        try:
            found: dict[str, Any] = json.loads(path.read_bytes())
            return dict(found["values"]) if found["ledger"] == self._ledger else None
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return None
