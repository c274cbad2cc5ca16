"""The first ledger: predictions with their shadows, failures and references; keys, experiments, routing, audit."""

import secrets

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Create every table. They are written out: `serve.tables` changes later, what this step did does not."""
    settings = op.create_table(
        "settings",
        sa.Column("name", sa.String(32), primary_key=True),
        sa.Column("value", sa.String(128), nullable=False),
    )
    op.bulk_insert(settings, [{"name": "pepper", "value": secrets.token_hex(32)}])
    op.create_table(
        "predictions",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("created_s", sa.Double, nullable=False),
        sa.Column("request_id", sa.String(128), nullable=False),
        sa.Column("key_id", sa.String(16), nullable=False),
        sa.Column("idempotency_key", sa.String(128)),
        sa.Column("fingerprint", sa.String(64), nullable=False),
        sa.Column("subject", sa.String(32)),
        sa.Column("sex", sa.String(8)),
        sa.Column("version", sa.String(32), nullable=False),
        sa.Column("bone_age_months", sa.Double, nullable=False),
        sa.Column("answer", sa.JSON, nullable=False),
        sa.Column("latency_ms", sa.Double, nullable=False),
        sa.Column("routing_version", sa.Integer, nullable=False),
        sa.Column("experiment", sa.String(64)),
        sa.Column("arm", sa.String(16)),
        sa.Column("share", sa.Double),
        sa.UniqueConstraint("key_id", "idempotency_key", name="uq_predictions_key_id"),
    )
    op.create_index("ix_predictions_experiment", "predictions", ["experiment", "created_s"])
    op.create_table(
        "shadows",
        sa.Column(
            "prediction_id",
            sa.String(32),
            sa.ForeignKey("predictions.id", name="fk_shadows_prediction_id"),
            primary_key=True,
        ),
        sa.Column("created_s", sa.Double, nullable=False),
        sa.Column("version", sa.String(32), nullable=False),
        sa.Column("bone_age_months", sa.Double, nullable=False),
        sa.Column("answer", sa.JSON, nullable=False),
        sa.Column("latency_ms", sa.Double, nullable=False),
    )
    op.create_table(
        "failures",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("created_s", sa.Double, nullable=False),
        sa.Column("request_id", sa.String(128), nullable=False),
        sa.Column("version", sa.String(32), nullable=False),
        sa.Column("code", sa.String(32), nullable=False),
        sa.Column("experiment", sa.String(64)),
        sa.Column("arm", sa.String(16)),
    )
    op.create_index("ix_failures_experiment", "failures", ["experiment", "created_s"])
    op.create_table(
        "reference_readings",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column(
            "prediction_id",
            sa.String(32),
            sa.ForeignKey("predictions.id", name="fk_reference_readings_prediction_id"),
            nullable=False,
        ),
        sa.Column("created_s", sa.Double, nullable=False),
        sa.Column("key_id", sa.String(16), nullable=False),
        sa.Column("reader", sa.String(32), nullable=False),
        sa.Column("bone_age_months", sa.Double, nullable=False),
    )
    op.create_index("ix_reference_readings_prediction_id", "reference_readings", ["prediction_id"])
    op.create_table(
        "keys",
        sa.Column("id", sa.String(16), primary_key=True),
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("roles", sa.String(32), nullable=False),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("created_s", sa.Double, nullable=False),
        sa.Column("ends_s", sa.Double),
    )
    op.create_table(
        "experiments",
        sa.Column("name", sa.String(64), primary_key=True),
        sa.Column("started_s", sa.Double, nullable=False),
        sa.Column("ended_s", sa.Double),
        sa.Column("outcome", sa.String(16)),
        sa.Column("definition", sa.JSON, nullable=False),
        sa.CheckConstraint("(ended_s IS NULL) = (outcome IS NULL)", name=op.f("ck_experiments_ended_with_outcome")),
    )
    op.create_table(
        "routing",
        sa.Column("version", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("created_s", sa.Double, nullable=False),
        sa.Column("state", sa.JSON, nullable=False),
    )
    op.create_table(
        "audit",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("created_s", sa.Double, nullable=False),
        sa.Column("actor", sa.String(64), nullable=False),
        sa.Column("act", sa.String(32), nullable=False),
        sa.Column("detail", sa.JSON, nullable=False),
    )
