"""Heat maps of predictions, and how many requests a minute a key may send."""

import sqlalchemy as sa
from alembic import op

revision = "heatmaps"
down_revision = "releases"


def upgrade() -> None:
    """Add a table and a column."""
    op.create_table(
        "heatmaps",
        sa.Column(
            "prediction_id",
            sa.String(32),
            sa.ForeignKey("predictions.id", name="fk_heatmaps_prediction_id"),
            primary_key=True,
        ),
        sa.Column("created_s", sa.Double, nullable=False),
        sa.Column("png", sa.LargeBinary, nullable=False),
    )
    op.add_column("keys", sa.Column("per_minute", sa.Integer))
