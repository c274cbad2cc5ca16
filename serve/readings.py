"""Subjects with a reading, taken up as the readings come: what the difference of an experiment is computed from.

Statistics count subjects, not images: of a subject who came twice the prediction whose reading came first counts, since
two images of one hand are not two independent observations. Where no subject was given, an image is one.

Readings are numbered in the order in which they are stored (`Ledger.add_reference`), so whoever remembers the last
number has only the new ones to read. A shadow may be stored after the reading of its image: subjects that lack theirs
are looked at again, in turn.

Shape letters: U units in the order of their first reading.
"""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import numpy as np
import sqlalchemy as sa

from serve import tables

STRIDE = 10_000
"""Readings of one round, at most."""
AGAIN = 1_000
"""Subjects without a shadow that are looked at again in one round, at most."""


@dataclass(frozen=True)
class Units:
    """Subjects with a reading."""

    reference_U: np.ndarray
    """``(U,)`` float64 mean of the readers' latest readings, in months."""
    champion_U: np.ndarray
    """``(U,)`` bone age by the champion, in months; NaN where only the challenger scored."""
    challenger_U: np.ndarray
    """``(U,)`` likewise."""
    is_challenger_U: np.ndarray
    """``(U,)`` bool: the arm that answered."""
    share_U: np.ndarray
    """``(U,)`` float64 probability with which it was the challenger."""
    sex_U: np.ndarray
    """``(U,)`` ``male``, ``female`` or ``unknown``."""

    def __len__(self) -> int:
        return len(self.reference_U)


@dataclass(slots=True)
class _Unit:
    prediction: Any
    shadow_months: float | None
    latest: dict[str, float] = field(default_factory=dict)
    """From a reader to the latest reading, in the order of their first ones."""


class Readings:
    """The readings of one experiment, as far as they were read.

    Args:
        experiment: Its name.
        has_shadows: Whether both versions score each image.
    """

    def __init__(self, experiment: str, *, has_shadows: bool) -> None:
        self._experiment, self._has_shadows = experiment, has_shadows
        self._last_id = 0
        self._units: dict[str, _Unit] = {}
        """By subject, in the order of their first reading."""
        self._without_shadow: deque[_Unit] = deque()
        self._arrays: Units | None = None
        self.is_complete = False
        """Whether the last round reached the newest reading."""

    def advance(self, connection: sa.Connection) -> None:
        """One round: the next readings, and shadows that were not there before."""
        readings = tables.reference_readings
        rows = connection.execute(_query().where(readings.c.id > self._last_id).limit(STRIDE)).all()
        self._look_again(connection)
        self._fold(row for row in rows if row.experiment == self._experiment)
        self._last_id = rows[-1].reading_id if rows else self._last_id
        self.is_complete = len(rows) < STRIDE

    def read_all(self, connection: sa.Connection) -> None:
        """Everything at once, instead of rounds."""
        self._fold(connection.execute(_query().where(tables.predictions.c.experiment == self._experiment)).all())
        self.is_complete = True

    def units(self) -> Units:
        """What was read so far; the same object as long as nothing was added."""
        if self._arrays is None:
            self._arrays = _arrays(list(self._units.values()))
        return self._arrays

    def _fold(self, rows: Iterable[Any]) -> None:
        for row in rows:
            name = row.subject or row.id
            if (unit := self._units.get(name)) is None:
                unit = self._units[name] = _Unit(row, row.shadow_months)
                if self._has_shadows and row.shadow_months is None:
                    self._without_shadow.append(unit)
            if unit.prediction.id == row.id:
                unit.latest[row.reader] = row.reading_months
                self._arrays = None

    def _look_again(self, connection: sa.Connection) -> None:
        table = tables.shadows
        units = list(islice(self._without_shadow, AGAIN))
        if not units:
            return
        query = sa.select(table.c.prediction_id, table.c.bone_age_months)
        rows = connection.execute(query.where(table.c.prediction_id.in_([unit.prediction.id for unit in units]))).all()
        months = {row.prediction_id: row.bone_age_months for row in rows}
        for unit in units:
            self._without_shadow.popleft()
            if unit.prediction.id in months:
                unit.shadow_months, self._arrays = months[unit.prediction.id], None
            else:
                self._without_shadow.append(unit)


def _query() -> sa.Select[Any]:
    """Readings with what was predicted, in the order in which they were stored."""
    table, shadows, readings = tables.predictions, tables.shadows, tables.reference_readings
    return (
        sa.select(
            readings.c.id.label("reading_id"),
            readings.c.reader,
            readings.c.bone_age_months.label("reading_months"),
            *(table.c[name] for name in ("id", "experiment", "subject", "sex", "arm", "share", "bone_age_months")),
            shadows.c.bone_age_months.label("shadow_months"),
        )
        .select_from(readings.join(table).outerjoin(shadows, shadows.c.prediction_id == table.c.id))
        .order_by(readings.c.id)
    )


def _arrays(units: list[_Unit]) -> Units:
    rows = [unit.prediction for unit in units]
    is_challenger_U = np.array([row.arm == "challenger" for row in rows], bool)
    answered_U = _floats(row.bone_age_months for row in rows)
    shadow_U = _floats(unit.shadow_months for unit in units)
    return Units(
        np.array([np.mean(list(unit.latest.values())) for unit in units], float),
        np.where(is_challenger_U, np.nan, answered_U),
        np.where(is_challenger_U, answered_U, shadow_U),
        is_challenger_U,
        _floats(row.share for row in rows),
        np.array([row.sex or "unknown" for row in rows], str),
    )


def _floats(values: Iterable[float | None]) -> np.ndarray:
    return np.array([np.nan if value is None else value for value in values], float)
