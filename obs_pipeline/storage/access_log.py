"""Who changed what through the dashboard: a table of the ledger to which rows are only ever added.

Only rows in and out; the database itself refuses changes to them (see the migration). Times are UTC, naive, and passed in.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import sqlalchemy as sa

from obs_pipeline.storage.ledger import Ledger, metadata

access_log: Final = sa.Table(
    "access_log",
    metadata,
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("at", sa.DateTime, nullable=False, index=True),
    sa.Column("token", sa.String(200), nullable=False, comment="id of the token, or whose word was taken"),
    sa.Column("actor", sa.String(200), nullable=False),
    sa.Column("role", sa.String(20), nullable=False),
    sa.Column("org", sa.Text, comment="null: every organisation"),
    sa.Column("action", sa.String(50), nullable=False),
    sa.Column("subject", sa.String(200), nullable=False, comment="id of what was changed"),
    sa.Column("detail", sa.Text, nullable=False, comment="JSON object: the inputs"),
    sqlite_autoincrement=True,
)


@dataclass(frozen=True, slots=True)
class AccessLogRow:
    """One deed. ``org`` is that of whoever did it; None is one who sees every organisation."""

    at: datetime
    token: str
    actor: str
    role: str
    org: str | None
    action: str
    subject: str
    detail: Mapping[str, Any]


class AccessLog:
    """The log in one ledger."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def add(self, row: AccessLogRow) -> None:
        values = {name: getattr(row, name) for name in AccessLogRow.__slots__}
        with self._ledger.begin() as connection:
            connection.execute(sa.insert(access_log).values(**values | {"detail": json.dumps(dict(row.detail))}))

    def rows(self, limit: int, org: str | None = None) -> list[AccessLogRow]:
        """The newest first; with ``org`` only what somebody of that organisation did."""
        query = sa.select(*(access_log.c[name] for name in AccessLogRow.__slots__)).order_by(access_log.c.number.desc())
        if org is not None:
            query = query.where(access_log.c.org == org)
        with self._ledger.read() as connection:
            rows = connection.execute(query.limit(limit)).mappings().all()
        return [AccessLogRow(**{**row, "detail": json.loads(row["detail"])}) for row in rows]
