"""Targets that follow the applied policies, what policy files said, and the way to a place's policies."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

_PLACE = ("scope_id", "org", "project")


def upgrade() -> None:
    op.create_table(
        "policy_files",
        sa.Column("file", sa.String(1000), primary_key=True),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("reader", sa.String(64), nullable=False),
        sa.Column("said", sa.Text, nullable=False),
    )
    op.create_table(
        "policy_targets",
        sa.Column("target", sa.String(50), primary_key=True),
        sa.Column("revision", sa.Integer, nullable=False),
        sa.Column("pending", sa.Integer, nullable=False),
        sa.Column("waiting", sa.Integer, nullable=False),
        sa.Column("failure", sa.Text, nullable=False),
        sa.Column("tried_at", sa.DateTime, nullable=False),
    )
    op.create_table(
        "policy_target_settings",
        sa.Column("target", sa.String(50), primary_key=True),
        sa.Column("setting", sa.String(700), primary_key=True),
        sa.Column("body", sa.Text, nullable=False),
        sa.Column("made", sa.Boolean, nullable=False),
        sa.Column("accepted_at", sa.DateTime, nullable=False),
    )
    # An index over what the content says: the rows are append only, so no column could be filled in afterwards.
    if op.get_bind().dialect.name == "postgresql":
        columns = ", ".join(f"(CAST(content AS JSONB) ->> '{name}')" for name in _PLACE)
    else:
        columns = ", ".join(f"json_extract(content, '$.{name}')" for name in _PLACE)
    op.execute(f"CREATE INDEX ix_policy_versions_place ON policy_versions ({columns})")


def downgrade() -> None:
    op.execute("DROP INDEX ix_policy_versions_place")
    for table in ("policy_target_settings", "policy_targets", "policy_files"):
        op.drop_table(table)
