"""What the ledger holds about an experiment, as arrays: every attempt of an arm, and every subject with a reading.

Statistics count subjects, not images: of a subject who came twice the prediction whose reading came first counts, since
two images of one hand are not two independent observations. Where no subject was given, an image is one.

Shape letters: P predictions in the order in which they were made, U units in the order of their first reading.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import sqlalchemy as sa

from serve import tables
from serve.database import Database


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


def observe(database: Database, experiment: str) -> tuple[Traffic, Units]:
    """Read everything about an experiment."""
    table, shadows, failures = tables.predictions, tables.shadows, tables.failures
    readings = tables.reference_readings
    columns = [
        table.c[name] for name in ("id", "created_s", "subject", "sex", "arm", "share", "bone_age_months", "latency_ms")
    ]
    shadowed = [
        shadows.c.bone_age_months.label("shadow_months"),
        shadows.c.latency_ms.label("shadow_ms"),
        shadows.c.created_s.label("shadow_s"),
    ]
    of_experiment = table.c.experiment == experiment
    with database.read() as connection:
        predictions = connection.execute(
            sa.select(*columns, *shadowed)
            .select_from(table.outerjoin(shadows))
            .where(of_experiment)
            .order_by(table.c.created_s, table.c.id)
        ).all()
        read = connection.execute(
            sa.select(readings.c.prediction_id, readings.c.reader, readings.c.bone_age_months)
            .join(table)
            .where(of_experiment)
            .order_by(readings.c.id)
        ).all()
        failed = connection.execute(
            sa.select(failures.c.arm, failures.c.created_s)
            .where(failures.c.experiment == experiment)
            .order_by(failures.c.created_s)
        ).all()
    return _traffic(predictions, failed), _units(predictions, read)


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
        {arm: np.array([row.created_s for row in failed if row.arm == arm]) for arm in ("champion", "challenger")},
        {"champion": times_P[~is_challenger_P], "challenger": np.sort(by_challenger)},
    )


def _units(predictions: Any, read: Any) -> Units:
    latest: dict[str, dict[str, float]] = {}  # prediction -> reader -> months; both in the order of their first reading
    for row in read:
        latest.setdefault(row.prediction_id, {})[row.reader] = row.bone_age_months
    by_id = {row.id: row for row in predictions}
    units: dict[str, Any] = {}
    for prediction_id in latest:
        row = by_id[prediction_id]
        units.setdefault(row.subject or row.id, row)
    rows = list(units.values())
    is_challenger_U = np.array([row.arm == "challenger" for row in rows], bool)
    answered_U = _floats(row.bone_age_months for row in rows)
    shadow_U = _floats(row.shadow_months for row in rows)
    return Units(
        np.array([np.mean(list(latest[row.id].values())) for row in rows], float),
        np.where(is_challenger_U, np.nan, answered_U),
        np.where(is_challenger_U, answered_U, shadow_U),
        is_challenger_U,
        _floats(row.share for row in rows),
        np.array([row.sex or "unknown" for row in rows], str),
    )


def _floats(values: Any) -> np.ndarray:
    return np.array([np.nan if value is None else value for value in values], float)
