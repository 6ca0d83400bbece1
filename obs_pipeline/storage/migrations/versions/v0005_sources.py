"""Positions of pulled sources."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "source_positions",
        sa.Column("source", sa.String(100), primary_key=True),
        sa.Column("position", sa.String(200)),
        sa.Column("pulled_at", sa.DateTime),
        sa.Column("rows_pulled", sa.BigInteger, nullable=False),
        sa.Column("failed_at", sa.DateTime),
        sa.Column("failure", sa.Text),
    )


def downgrade() -> None:
    op.drop_table("source_positions")
