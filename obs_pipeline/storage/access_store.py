"""Access tokens and saved views in the ledger.

Only rows in and out. A token itself is never here, only its digest; what a role may do is decided elsewhere. Times are
UTC, naive, and passed in.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import sqlalchemy as sa

from obs_pipeline.storage.ledger import Ledger, metadata

access_tokens: Final = sa.Table(
    "access_tokens",
    metadata,
    sa.Column("id", sa.String(16), primary_key=True),
    sa.Column("name", sa.String(200), nullable=False),
    sa.Column("digest", sa.String(64), nullable=False, unique=True, comment="SHA-256 of the token"),
    sa.Column("role", sa.String(20), nullable=False),
    sa.Column("org", sa.Text, comment="null: every organisation"),
    sa.Column("projects", sa.Text, nullable=False, comment="JSON list; empty: every project"),
    sa.Column("created_at", sa.DateTime, nullable=False),
    sa.Column("expires_at", sa.DateTime),
    sa.Column("revoked_at", sa.DateTime),
)

LONGEST_NAME: Final = 200

saved_views: Final = sa.Table(
    "saved_views",
    metadata,
    sa.Column("org", sa.String(200), primary_key=True, comment="empty: of those who see every organisation"),
    sa.Column("name", sa.String(LONGEST_NAME), primary_key=True),
    sa.Column("owner", sa.String(200), nullable=False),
    sa.Column("content", sa.Text, nullable=False, comment="JSON object"),
    sa.Column("updated_at", sa.DateTime, nullable=False),
)


@dataclass(frozen=True, slots=True)
class TokenRow:
    """A token's record. ``projects`` is empty for all of the organisation; ``org`` is None for all organisations."""

    id: str
    name: str
    digest: str
    role: str
    org: str | None
    projects: tuple[str, ...]
    created_at: datetime
    expires_at: datetime | None = None
    revoked_at: datetime | None = None

    def usable_at(self, now: datetime) -> bool:
        return self.revoked_at is None and (self.expires_at is None or now < self.expires_at)


@dataclass(frozen=True, slots=True)
class SavedView:
    """Filters and layout under a name, shared within one organisation."""

    org: str
    name: str
    owner: str
    content: Mapping[str, Any]
    updated_at: datetime


class AccessStore:
    """The access tables of one ledger."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def add(self, token: TokenRow) -> None:
        values = {name: getattr(token, name) for name in TokenRow.__slots__}
        with self._ledger.begin() as connection:
            connection.execute(sa.insert(access_tokens).values(**values | {"projects": json.dumps(token.projects)}))

    def by_digest(self, digest: str) -> TokenRow | None:
        query = sa.select(access_tokens).where(access_tokens.c.digest == digest)
        with self._ledger.read() as connection:
            found = connection.execute(query).mappings().one_or_none()
        return None if found is None else _token(found)

    def tokens(self) -> list[TokenRow]:
        """All of them, revoked ones too, the oldest first."""
        query = sa.select(access_tokens).order_by(access_tokens.c.created_at, access_tokens.c.id)
        with self._ledger.read() as connection:
            return [_token(row) for row in connection.execute(query).mappings()]

    def revoke(self, token_id: str, now: datetime) -> bool:
        """False when there is no such token, or it was revoked before."""
        change = sa.update(access_tokens).where(access_tokens.c.id == token_id, access_tokens.c.revoked_at.is_(None))
        with self._ledger.begin() as connection:
            return connection.execute(change.values(revoked_at=now)).rowcount == 1

    def save_view(self, view: SavedView) -> None:
        """Keep a view; one of the same name in the organisation is replaced."""
        values = {"owner": view.owner, "content": json.dumps(dict(view.content)), "updated_at": view.updated_at}
        same = sa.and_(saved_views.c.org == view.org, saved_views.c.name == view.name)
        with self._ledger.begin() as connection:
            if connection.execute(sa.update(saved_views).where(same).values(**values)).rowcount == 0:
                connection.execute(sa.insert(saved_views).values(org=view.org, name=view.name, **values))

    def forget_view(self, org: str, name: str) -> bool:
        """False when there is no such view."""
        same = sa.and_(saved_views.c.org == org, saved_views.c.name == name)
        with self._ledger.begin() as connection:
            return connection.execute(sa.delete(saved_views).where(same)).rowcount == 1

    def view(self, org: str, name: str) -> SavedView | None:
        return next((one for one in self.views(org) if one.name == name), None)

    def views(self, org: str) -> list[SavedView]:
        query = sa.select(saved_views).where(saved_views.c.org == org).order_by(saved_views.c.name)
        with self._ledger.read() as connection:
            rows = connection.execute(query).mappings().all()
        return [SavedView(**{**row, "content": json.loads(row["content"])}) for row in rows]


def _token(row: sa.RowMapping) -> TokenRow:
    return TokenRow(**{**row, "projects": tuple(json.loads(row["projects"]))})
