"""All that the ledger holds about an experiment: every attempt of an arm as arrays, and every subject with a reading.

Shape letters: P predictions in the order in which they were made.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import sqlalchemy as sa

from serve import tables
from serve.database import Database
from serve.experiment import Experiment
from serve.readings import Readings, Units
from serve.recent import ARMS, recent


@dataclass(frozen=True)
class Traffic:
    """Predictions of an experiment."""

    is_challenger_P: np.ndarray
    """``(P,)`` bool: the arm that answered."""
    share_P: np.ndarray
    """``(P,)`` float64 probability with which it was the challenger."""
    is_first_P: np.ndarray
    """``(P,)`` bool: the subject's first."""
    latency_ms_P: np.ndarray
    """``(P,)`` of the arm that answered."""
    months_P: np.ndarray
    """``(P,)`` of the arm that answered."""
    shadow_ms_P: np.ndarray
    """``(P,)`` of the challenger in the shadow; NaN without one."""
    shadow_months_P: np.ndarray
    """``(P,)`` likewise."""
    failed: dict[str, np.ndarray]
    """Times at which each arm failed, Unix seconds."""
    answered: dict[str, np.ndarray]
    """Times at which each arm answered, in the shadow too."""


@dataclass(frozen=True)
class Observed:
    """Everything about an experiment."""

    traffic: Traffic
    units: Units
    recent: dict[str, Any]
    """As `serve.recent.recent` finds it."""


def observe(database: Database, experiment: Experiment) -> Observed:
    """Read everything about an experiment: 200,000 predictions take seconds, so not in an event loop."""
    table, shadows, failures = tables.predictions, tables.shadows, tables.failures
    columns = [
        table.c[name] for name in ("id", "created_s", "subject", "arm", "share", "bone_age_months", "latency_ms")
    ]
    shadowed = [
        shadows.c.bone_age_months.label("shadow_months"),
        shadows.c.latency_ms.label("shadow_ms"),
        shadows.c.created_s.label("shadow_s"),
    ]
    readings = Readings(experiment.name, has_shadows=experiment.mode == "shadow")
    with database.read() as connection:
        predictions = connection.execute(
            sa.select(*columns, *shadowed)
            .select_from(table.outerjoin(shadows))
            .where(table.c.experiment == experiment.name)
            .order_by(table.c.created_s, table.c.id)
        ).all()
        readings.read_all(connection)
        failed = connection.execute(
            sa.select(failures.c.arm, failures.c.created_s)
            .where(failures.c.experiment == experiment.name)
            .order_by(failures.c.created_s)
        ).all()
        return Observed(_traffic(predictions, failed), readings.units(), recent(connection, experiment))


def _traffic(predictions: Any, failed: Any) -> Traffic:
    is_challenger_P = np.array([row.arm == "challenger" for row in predictions], bool)
    times_P = np.array([row.created_s for row in predictions], float)
    shadow_s_P = _floats(row.shadow_s for row in predictions)
    seen: set[str] = set()
    is_first_P = np.zeros(len(predictions), bool)
    for index, row in enumerate(predictions):
        unit = row.subject or row.id
        is_first_P[index] = unit not in seen
        seen.add(unit)
    by_challenger = np.concatenate([times_P[is_challenger_P], shadow_s_P[~np.isnan(shadow_s_P)]])
    return Traffic(
        is_challenger_P,
        _floats(row.share for row in predictions),
        is_first_P,
        _floats(row.latency_ms for row in predictions),
        _floats(row.bone_age_months for row in predictions),
        _floats(row.shadow_ms for row in predictions),
        _floats(row.shadow_months for row in predictions),
        {arm: np.array([row.created_s for row in failed if row.arm == arm]) for arm in ARMS},
        {"champion": times_P[~is_challenger_P], "challenger": np.sort(by_challenger)},
    )


def _floats(values: Any) -> np.ndarray:
    return np.array([np.nan if value is None else value for value in values], float)
