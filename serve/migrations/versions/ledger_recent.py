"""Indices that lead to the last answers and failures of an arm, the last shadows, and a subject's first answer."""

from alembic import op

revision = "recent"
down_revision = "heatmaps"


def upgrade() -> None:
    """Add them; those by experiment alone are parts of theirs."""
    if op.get_bind().dialect.name == "postgresql":
        op.execute("SET LOCAL statement_timeout = 0")  # a long ledger is indexed for longer than a request may wait
    op.create_index("ix_predictions_arm", "predictions", ["experiment", "arm", "created_s"])
    op.create_index("ix_predictions_subject", "predictions", ["experiment", "subject", "created_s"])
    op.create_index("ix_failures_arm", "failures", ["experiment", "arm", "created_s"])
    op.create_index("ix_shadows_created_s", "shadows", ["created_s"])
    op.drop_index("ix_predictions_experiment", "predictions")
    op.drop_index("ix_failures_experiment", "failures")
