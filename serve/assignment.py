"""Who met which arm: how many subjects an experiment gave to each, and whether these are the shares that were drawn.

A subject counts where it came first, so each prediction asks whether its subject was there before, by an index; no
subject is kept in memory. A round goes on where the last one ended. What a gateway spooled while the database was away
is stored behind that place and would never be met: a recount goes over everything again, some a round, and replaces the
count when it is through.
"""

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
import sqlalchemy as sa

from serve import tables
from serve.confidence import anytime_p
from serve.recent import ARMS

STRIDE = 10_000
"""Predictions of an arm that one round counts, at most."""
RECOUNT = 4_000
"""Of these, that one round counts again: all the time, so fewer, yet more than arrive meanwhile."""
RATIO_ALPHA = 0.001
"""Below this the split is not the one that was drawn; small, since it stops everything."""


class Assignment:
    """The counts of one experiment, as far as it was counted.

    Args:
        experiment: Its name.
    """

    def __init__(self, experiment: str) -> None:
        self._experiment = experiment
        self._count, self._recount = _Count(experiment), _Count(experiment)

    @property
    def is_complete(self) -> bool:
        """Whether the last round reached the newest prediction."""
        return self._count.is_complete

    @property
    def subjects(self) -> Mapping[tuple[str, float], int]:
        """From an arm and the probability of the challenger to the subjects who met that arm under it."""
        return self._count.subjects

    @property
    def answered(self) -> Mapping[str, int]:
        """From an arm to its answers."""
        return self._count.answered

    def advance(self, connection: sa.Connection) -> None:
        """One round."""
        self._count.advance(connection, STRIDE)
        if self._count.is_complete:
            self._recount.advance(connection, RECOUNT)
            if self._recount.is_complete:
                self._count, self._recount = self._recount, _Count(self._experiment)


class _Count:
    """One way through the predictions of each arm, in the order of time."""

    def __init__(self, experiment: str) -> None:
        self._experiment = experiment
        self._reached = dict.fromkeys(ARMS, (0.0, ""))
        self.subjects: Counter[tuple[str, float]] = Counter()
        self.answered: Counter[str] = Counter()
        self.is_complete = False

    def advance(self, connection: sa.Connection, most: int) -> None:
        found = {arm: self._next(connection, arm, most) for arm in ARMS}
        for arm, rows in found.items():
            self.answered[arm] += len(rows)
            self.subjects.update((arm, row.share) for row in rows if not row.came_before)
            self._reached[arm] = (rows[-1].created_s, rows[-1].id) if rows else self._reached[arm]
        self.is_complete = all(len(rows) < most for rows in found.values())

    def _next(self, connection: sa.Connection, arm: str, most: int) -> Any:
        table = tables.predictions
        before = table.alias("before")
        came_before = sa.exists().where(
            before.c.experiment == table.c.experiment,
            before.c.subject == table.c.subject,
            _moment(before) < _moment(table),
        )
        return connection.execute(
            sa.select(table.c.created_s, table.c.id, table.c.share, came_before.label("came_before"))
            .where(
                table.c.experiment == self._experiment,
                table.c.arm == arm,
                _moment(table) > sa.tuple_(*map(sa.literal, self._reached[arm])),
            )
            .order_by(table.c.created_s, table.c.id)
            .limit(most)
        ).all()


def ratio(subjects: Mapping[tuple[str, float], int]) -> dict[str, Any]:
    """Whether the arms got the shares that were drawn for them: sample-ratio mismatch, checked at any time.

    A mismatch means that who was counted depended on the arm, and then no difference between the arms means anything
    (the sequential idea: Lindon and Malek, "Anytime-valid inference for multinomial count data", NeurIPS 2022).

    Args:
        subjects: As `Assignment.subjects`.
    """
    kinds = sorted(subjects)
    times_K = np.array([subjects[kind] for kind in kinds], int)
    is_challenger_K = np.array([arm == "challenger" for arm, _ in kinds], bool)
    share_K = np.array([share for _, share in kinds], float)
    p = anytime_p(is_challenger_K - share_K, np.ones(len(kinds)), times_K)
    return {
        "subjects": int(times_K.sum()),
        "challenger": int(times_K[is_challenger_K].sum()),
        "expected": float((share_K * times_K).sum()),
        "p": p,
        "is_as_drawn": p >= RATIO_ALPHA,
    }


def _moment(table: Any) -> Any:
    return sa.tuple_(table.c.created_s, table.c.id)
