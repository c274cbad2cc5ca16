"""The window that a policy's bounds look back on: errors, latency and disagreement of an experiment's last answers.

The last `Policy.window` of each, in the order in which they were given, are found from the newest backwards by an
index, so the cost is that of the window, however long the experiment has run. A shadow is an answer of the challenger,
given when the challenger gave it.
"""

from typing import Any

import numpy as np
import sqlalchemy as sa

from serve import tables
from serve.experiment import Experiment

ARMS = ("champion", "challenger")


def recent(connection: sa.Connection, experiment: Experiment) -> dict[str, Any]:
    """What the bounds of an experiment's policy look at, as plain JSON values.

    Returns:
        ``attempts`` and ``error_rate`` of the challenger; ``p95_ms`` of each arm's answers, of which there are
        ``latency_n`` at least; ``pairs`` and ``disagreement``, the share of them that lie too far apart. A rate is None
        where it has no data.
    """
    policy, is_shadow = experiment.policy, experiment.mode == "shadow"
    champion = _answers(connection, experiment.name, "champion", policy.window)
    if is_shadow:
        challenger = _shadows(connection, experiment.name, policy.window)
    else:
        challenger = _answers(connection, experiment.name, "challenger", policy.window)
    answered_A = np.array([row.created_s for row in challenger], float)
    failed_F = _failures(connection, experiment.name, policy.window)
    order = np.argsort(np.concatenate([answered_A, failed_F]), kind="stable")
    last = np.repeat([False, True], [len(answered_A), len(failed_F)])[order][-policy.window :]
    gap_A = np.array([abs(row.bone_age_months - row.champion_months) for row in challenger] if is_shadow else [], float)
    return {
        "attempts": len(last),
        "error_rate": float(last.mean()) if len(last) else None,
        "latency_n": min(len(champion), len(challenger)),
        "p95_ms": {arm: _p95_ms(rows) for arm, rows in zip(ARMS, (champion, challenger), strict=True)},
        "pairs": len(gap_A),
        "disagreement": float((gap_A > policy.disagreement_months).mean()) if len(gap_A) else None,
    }


def _p95_ms(rows: Any) -> float | None:
    return float(np.percentile([row.latency_ms for row in rows], 95)) if rows else None


def _answers(connection: sa.Connection, name: str, arm: str, most: int) -> Any:
    table = tables.predictions
    query = sa.select(table.c.created_s, table.c.latency_ms).where(table.c.experiment == name, table.c.arm == arm)
    return connection.execute(query.order_by(table.c.created_s.desc(), table.c.id.desc()).limit(most)).all()


def _shadows(connection: sa.Connection, name: str, most: int) -> Any:
    table, predictions = tables.shadows, tables.predictions

    def of_prediction(column: str) -> Any:
        # not a join: a planner might read the experiment's predictions first, and sort them all
        query = sa.select(predictions.c[column]).where(predictions.c.id == table.c.prediction_id)
        return query.scalar_subquery()

    # one experiment runs at a time, so nearly all shadows since its first answer are its own
    first = sa.select(sa.func.min(predictions.c.created_s)).where(
        predictions.c.experiment == name, predictions.c.arm == "champion"
    )
    query = (
        sa.select(
            table.c.created_s,
            table.c.latency_ms,
            table.c.bone_age_months,
            of_prediction("bone_age_months").label("champion_months"),
        )
        .where(of_prediction("experiment") == name, table.c.created_s >= first.scalar_subquery())
        .order_by(table.c.created_s.desc(), table.c.prediction_id.desc())
        .limit(most)
    )
    return connection.execute(query).all()


def _failures(connection: sa.Connection, name: str, most: int) -> np.ndarray:
    table = tables.failures
    query = sa.select(table.c.created_s).where(table.c.experiment == name, table.c.arm == "challenger")
    return np.array(connection.execute(query.order_by(table.c.created_s.desc()).limit(most)).scalars().all(), float)
