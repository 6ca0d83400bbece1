"""Landed files and days, settled days, alert records."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "landed_files",
        sa.Column("file_id", sa.String(64), primary_key=True),
        sa.Column("mapping", sa.String(64), nullable=False),
        sa.Column("source", sa.String(200), nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("bytes", sa.BigInteger, nullable=False),
        sa.Column("state", sa.String(20), nullable=False),
        sa.Column("rows_read", sa.BigInteger, nullable=False),
        sa.Column("started_at", sa.DateTime, nullable=False),
        sa.Column("landed_at", sa.DateTime),
    )
    op.create_table(
        "landed_days",
        sa.Column("landing", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("file_id", sa.String(64), sa.ForeignKey("landed_files.file_id"), nullable=False),
        sa.Column("dt", sa.Date, nullable=False, index=True),
        sa.Column("rows_read", sa.BigInteger, nullable=False),
        sa.Column("rows_rejected", sa.BigInteger, nullable=False),
        sa.Column("first_event", sa.DateTime),
        sa.Column("last_event", sa.DateTime),
        sa.UniqueConstraint("file_id", "dt"),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "settled_days",
        sa.Column("dt", sa.Date, primary_key=True),
        sa.Column("seen_landing", sa.Integer, nullable=False),
        sa.Column("through_landing", sa.Integer, nullable=False),
        sa.Column("settled_at", sa.DateTime),
    )
    op.create_table(
        "alert_records",
        sa.Column("key", sa.String(200), primary_key=True),
        sa.Column("kind", sa.String(50), nullable=False),
        sa.Column("severity", sa.String(20), nullable=False),
        sa.Column("subject", sa.Text, nullable=False),
        sa.Column("detail", sa.Text, nullable=False),
        sa.Column("raised_at", sa.DateTime, nullable=False),
    )


def downgrade() -> None:
    for table in ("alert_records", "settled_days", "landed_days", "landed_files"):
        op.drop_table(table)
