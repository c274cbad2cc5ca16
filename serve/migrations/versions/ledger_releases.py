"""What became of each version that the service was told to hold."""

import sqlalchemy as sa
from alembic import op

revision = "releases"
down_revision = "0001"


def upgrade() -> None:
    """Create the table."""
    op.create_table(
        "releases",
        sa.Column("version", sa.String(32), primary_key=True),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("changed_s", sa.Double, nullable=False),
        sa.Column("reason", sa.String(500), nullable=False),
        sa.Column("description", sa.JSON, nullable=False),
    )
