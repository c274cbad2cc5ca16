"""What a gateway writes into the ledger: predictions, shadows, failures and heat maps, each a row with its table.

The same entries go into the database or, while that is away, into a spool, and from there into the database.
"""

import base64
import re
import secrets
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from serve.database import LedgerError

ID_PATTERN = re.compile(r"[0-9a-f]{32}")


def new_id() -> str:
    """32 hex digits that begin with the time, so that neighbours in time are neighbours in the index."""
    return f"{time.time_ns() // 1000:014x}{secrets.token_hex(9)}"


@dataclass(frozen=True, kw_only=True)
class Answered:
    """A prediction, as it is stored before it is answered."""

    id: str = field(default_factory=new_id)
    created_s: float = field(default_factory=time.time)
    request_id: str
    key_id: str
    """Key that asked; empty on an open service."""
    idempotency_key: str | None = None
    fingerprint: str
    """`fingerprint` of what was asked."""
    subject: str | None
    """`Ledger.pseudonym` of the subject, where one was given."""
    sex: str | None
    """``male`` or ``female``, or None where it is unknown."""
    version: str
    bone_age_months: float
    answer: Mapping[str, Any]
    """The whole answer, as sent."""
    latency_ms: float
    routing_version: int
    experiment: str | None = None
    arm: str | None = None
    """``champion`` or ``challenger``: who answered, inside an experiment."""
    share: float | None = None
    """Probability with which the experiment gave this subject its arm."""


@dataclass(frozen=True, kw_only=True)
class Shadowed:
    """What a challenger says about a prediction that the champion answered."""

    prediction_id: str
    created_s: float = field(default_factory=time.time)
    version: str
    bone_age_months: float
    answer: Mapping[str, Any]
    latency_ms: float


@dataclass(frozen=True, kw_only=True)
class Failed:
    """A version that could not answer for a fit image."""

    id: str = field(default_factory=new_id)
    created_s: float = field(default_factory=time.time)
    request_id: str
    version: str
    code: str
    experiment: str | None = None
    arm: str | None = None


@dataclass(frozen=True, kw_only=True)
class Explained:
    """The heat map of a prediction."""

    prediction_id: str
    created_s: float = field(default_factory=time.time)
    png: bytes


Entry = Answered | Shadowed | Failed | Explained
_KINDS: dict[str, type] = {"answered": Answered, "shadowed": Shadowed, "failed": Failed, "explained": Explained}


def to_json(entry: Entry) -> dict[str, Any]:
    """An entry as plain JSON values."""
    (kind,) = (name for name, of in _KINDS.items() if isinstance(entry, of))
    values = asdict(entry)
    if isinstance(entry, Explained):
        values["png"] = base64.b64encode(entry.png).decode("ascii")
    return {"kind": kind, **values}


def from_json(value: Mapping[str, Any]) -> Entry:
    """The entry that `to_json` wrote.

    Raises:
        LedgerError: It is none.
    """
    try:
        fields = dict(value)
        kind = _KINDS[fields.pop("kind")]
        if kind is Explained:
            fields["png"] = base64.b64decode(fields["png"], validate=True)
        entry: Entry = kind(**fields)
    except (KeyError, TypeError, ValueError) as error:
        raise LedgerError(f"A spooled entry cannot be read ({error}). Was it written by another release?") from None
    return entry
