"""Until when what people judged lasted: the hours of one incident are one anomaly."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("anomaly_labels") as table:
        table.add_column(sa.Column("ends", sa.DateTime))


def downgrade() -> None:
    with op.batch_alter_table("anomaly_labels") as table:
        table.drop_column("ends")
