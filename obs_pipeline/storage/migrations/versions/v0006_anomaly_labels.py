"""What people said of anomalies."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "anomaly_labels",
        sa.Column("number", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("anomaly_id", sa.String(40), nullable=False, index=True),
        sa.Column("verdict", sa.String(20), nullable=False),
        sa.Column("org", sa.Text),
        sa.Column("project", sa.Text),
        sa.Column("agent", sa.Text),
        sa.Column("metric", sa.String(20), nullable=False),
        sa.Column("grain", sa.String(20), nullable=False),
        sa.Column("timestamp", sa.DateTime, nullable=False),
        sa.Column("author", sa.String(200), nullable=False),
        sa.Column("note", sa.Text, nullable=False),
        sa.Column("at", sa.DateTime, nullable=False),
        sqlite_autoincrement=True,
    )


def downgrade() -> None:
    op.drop_table("anomaly_labels")
