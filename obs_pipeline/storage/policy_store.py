"""Which policies were ever in force, and the audit log: tables of the ledger to which rows are only ever added.

Knows rows, not policies: contents are text, digests are given. What a policy says, how a chain is computed and when a
sync is allowed are the policy room's business. Times are UTC without a zone.

A policy's latest version up to a revision is what was in force then; a version without content says that the policy
was removed. So no row is ever changed, and the state as of any revision is one query. The database itself refuses
changes to these rows (see the migration).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.engine import Connection

from obs_pipeline.errors import ObsError
from obs_pipeline.storage.ledger import Ledger, metadata

policy_revisions: Final = sa.Table(
    "policy_revisions",
    metadata,
    sa.Column("revision", sa.Integer, primary_key=True, autoincrement=False, comment="1, 2, 3 … without gaps"),
    sa.Column("kind", sa.String(20), nullable=False, comment="sync or rollback"),
    sa.Column("author", sa.String(200), nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("applied_at", sa.DateTime, nullable=False, index=True),
    sa.Column("forced", sa.Boolean, nullable=False, comment="applied in spite of conflicts"),
    sa.Column("policies", sa.Integer, nullable=False, comment="how many are in force from here on"),
    sa.Column("digest", sa.String(64), nullable=False, comment="of everything in force from here on"),
    sa.Column("files_digest", sa.String(64), nullable=False, comment="of the folder, or empty if not all of it"),
    sa.Column("audit_entry", sa.Integer, nullable=False, comment="the audit log's last entry with this revision"),
    sa.Column("audit_digest", sa.String(64), nullable=False),
)

policy_versions: Final = sa.Table(
    "policy_versions",
    metadata,
    sa.Column("policy_id", sa.String(100), primary_key=True),
    sa.Column("version", sa.Integer, primary_key=True, autoincrement=False, comment="1, 2, 3 … of this policy"),
    sa.Column("revision", sa.ForeignKey("policy_revisions.revision"), nullable=False, index=True),
    sa.Column("content", sa.Text, comment="JSON object; NULL where the policy was removed"),
    sa.Column("digest", sa.String(64), nullable=False, comment="of the content; empty where removed"),
    sa.Column("file", sa.Text, nullable=False, comment="where this version was first read"),
    sa.Column("line", sa.Integer, nullable=False),
)

audit_log: Final = sa.Table(
    "audit_log",
    metadata,
    sa.Column("entry", sa.Integer, primary_key=True, autoincrement=False, comment="1, 2, 3 … without gaps"),
    sa.Column("at", sa.DateTime, nullable=False, index=True),
    sa.Column("actor", sa.String(200), nullable=False),
    sa.Column("action", sa.String(20), nullable=False, comment="create, update, delete, sync, force, rollback"),
    sa.Column("subject", sa.String(100), nullable=False, index=True, comment="policy id, or empty for all of them"),
    sa.Column("revision", sa.Integer, nullable=False),
    sa.Column("detail", sa.Text, nullable=False, comment="canonical JSON object"),
    sa.Column("previous", sa.String(64), nullable=False, comment="digest of the entry before"),
    sa.Column("digest", sa.String(64), nullable=False),
)

policy_files: Final = sa.Table(
    "policy_files",
    metadata,
    sa.Column("file", sa.String(1000), primary_key=True),
    sa.Column("digest", sa.String(64), nullable=False, comment="of its bytes when it was last applied"),
    sa.Column("reader", sa.String(64), nullable=False, comment="which program read it"),
    sa.Column("said", sa.Text, nullable=False, comment="JSON list of policy id, version and line"),
)

APPEND_ONLY: Final = (policy_revisions, policy_versions, audit_log)
"""Rows are only ever added to these."""

_PLACE: Final = ("scope_id", "org", "project")


class ConcurrentChange(ObsError):
    """Someone else changed the applied policies at the same moment; nothing of this change was applied."""

    exit_code = 4


@dataclass(frozen=True, slots=True)
class Revision:
    """One change of the applied policies: all of it came into force at ``applied_at`` (UTC), or none."""

    revision: int
    kind: str
    author: str
    reason: str
    applied_at: datetime
    forced: bool
    policies: int
    digest: str
    files_digest: str
    audit_entry: int
    audit_digest: str


@dataclass(frozen=True, slots=True)
class PolicyVersion:
    """One policy as it came into force with ``revision``; ``content`` is ``None`` where it was removed."""

    policy_id: str
    version: int
    revision: int
    content: str | None
    digest: str
    file: str
    line: int


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """One line of the audit log. ``digest`` covers everything else of the entry and the digest before."""

    entry: int
    at: datetime
    actor: str
    action: str
    subject: str
    revision: int
    detail: str
    previous: str
    digest: str


@dataclass(frozen=True, slots=True)
class ReadFile:
    """What a policy file said when it was last applied: as JSON, the id, version and line of each of its policies."""

    file: str
    digest: str
    reader: str
    said: str


class Writing:
    """One transaction that adds a revision; opened by ``PolicyStore.writing``."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def head(self) -> int:
        """The newest revision, 0 before the first."""
        return self._connection.scalar(sa.select(sa.func.max(policy_revisions.c.revision))) or 0

    def last_entry(self) -> AuditEntry | None:
        query = sa.select(audit_log).order_by(audit_log.c.entry.desc()).limit(1)
        row = self._connection.execute(query).mappings().one_or_none()
        return None if row is None else AuditEntry(**row)

    def add(self, revision: Revision, versions: Iterable[PolicyVersion], entries: Iterable[AuditEntry]) -> None:
        # The revision goes first: whoever adds the same number at the same time fails here, not halfway.
        self._connection.execute(sa.insert(policy_revisions), _row(revision))
        for table, rows in ((policy_versions, versions), (audit_log, entries)):
            listed = [_row(row) for row in rows]
            if listed:
                self._connection.execute(sa.insert(table), listed)


class PolicyStore:
    """The applied policies and the audit log of one ledger."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    @contextmanager
    def writing(self) -> Iterator[Writing]:
        """A transaction: everything added in the block is kept, or nothing.

        Raises:
            ConcurrentChange: another process added the same revision at the same time.
        """
        try:
            with self._ledger.begin() as connection:
                yield Writing(connection)
        except sa.exc.IntegrityError as error:
            raise ConcurrentChange(
                "The applied policies were changed by someone else at the same moment, so nothing was applied. "
                "Look at what they are now and run the command again."
            ) from error

    def head(self) -> Revision | None:
        """The revision in force; ``None`` before the first sync."""
        return self._one(sa.select(policy_revisions).order_by(policy_revisions.c.revision.desc()).limit(1))

    def revision(self, number: int) -> Revision | None:
        return self._one(sa.select(policy_revisions).where(policy_revisions.c.revision == number))

    def revision_at(self, moment: datetime) -> Revision | None:
        """The revision that was in force at ``moment`` (UTC)."""
        newest = policy_revisions.c.revision.desc()
        return self._one(
            sa.select(policy_revisions).where(policy_revisions.c.applied_at <= moment).order_by(newest).limit(1)
        )

    def revisions(self, limit: int | None = None) -> list[Revision]:
        """The newest first."""
        query = sa.select(policy_revisions).order_by(policy_revisions.c.revision.desc()).limit(limit)
        with self._ledger.read() as connection:
            return [Revision(**row) for row in connection.execute(query).mappings()]

    def latest(self, revision: int) -> list[PolicyVersion]:
        """Each policy's latest version as of ``revision``, by id; removed policies are among them."""
        newest = (
            sa.select(policy_versions.c.policy_id, sa.func.max(policy_versions.c.version).label("version"))
            .where(policy_versions.c.revision <= revision)
            .group_by(policy_versions.c.policy_id)
            .subquery()
        )
        same = sa.and_(newest.c.policy_id == policy_versions.c.policy_id, newest.c.version == policy_versions.c.version)
        return sorted(self._versions(sa.select(policy_versions).join(newest, same)), key=lambda row: row.policy_id)

    def latest_at(self, revision: int, places: Iterable[tuple[str, str | None, str | None]]) -> list[PolicyVersion]:
        """Of every policy that was ever for one of ``places``, the latest version as of ``revision``, by id.

        A place is the ``scope_id``, ``org`` and ``project`` that contents state. Reads a few rows by an index, however
        many policies there are. Removed policies, and those that are for another place by now, are among them.
        """
        stated = [self._stated(name) for name in _PLACE]
        same = [
            sa.and_(
                *(there.is_(None) if part is None else there == part for there, part in zip(stated, each, strict=True))
            )
            for each in places
        ]
        return self._latest_where(revision, sa.or_(sa.false(), *same))

    def latest_named(self, revision: int, scope_id: str) -> list[PolicyVersion]:
        """Of every policy that was ever for something called ``scope_id``, the latest version as of ``revision``."""
        return self._latest_where(revision, self._stated("scope_id") == scope_id)

    def _latest_where(self, revision: int, ever: sa.ColumnElement[bool]) -> list[PolicyVersion]:
        ids = sa.select(policy_versions.c.policy_id).where(ever)
        query = sa.select(policy_versions).where(
            policy_versions.c.policy_id.in_(ids), policy_versions.c.revision <= revision
        )
        oldest_first = query.order_by(policy_versions.c.policy_id, policy_versions.c.version)
        return list({row.policy_id: row for row in self._versions(oldest_first)}.values())

    def _stated(self, name: str) -> sa.ColumnElement[Any]:
        # Written as the index is, or the index would not be used.
        if self._ledger.url.startswith("postgresql"):
            told = sa.cast(policy_versions.c.content, JSONB).op("->>", return_type=sa.Text())
            return told(sa.literal_column(f"'{name}'"))
        return sa.func.json_extract(policy_versions.c.content, sa.literal_column(f"'$.{name}'"), type_=sa.Text())

    def read_files(self, reader: str) -> list[ReadFile]:
        """What the policy files said when they were last applied, as ``reader`` read them."""
        query = sa.select(policy_files).where(policy_files.c.reader == reader)
        with self._ledger.read() as connection:
            return [ReadFile(*row) for row in connection.execute(query)]

    def remember_files(self, changed: Iterable[ReadFile], gone: Iterable[str]) -> None:
        """Keep what files say now, and forget those that are gone."""
        rows = [_row(each) for each in changed]
        names = [{"name": name} for name in (*gone, *(str(row["file"]) for row in rows))]
        with self._ledger.begin() as connection:
            if names:
                connection.execute(sa.delete(policy_files).where(policy_files.c.file == sa.bindparam("name")), names)
            if rows:
                connection.execute(sa.insert(policy_files), rows)

    def versions_of(self, policy_id: str) -> list[PolicyVersion]:
        """Every version of one policy, oldest first."""
        own = sa.select(policy_versions).where(policy_versions.c.policy_id == policy_id)
        return self._versions(own.order_by(policy_versions.c.version))

    def versions(self) -> list[PolicyVersion]:
        """Every version of every policy, in the order of revisions."""
        return self._versions(
            sa.select(policy_versions).order_by(policy_versions.c.revision, policy_versions.c.policy_id)
        )

    def audit(
        self, since: datetime | None = None, until: datetime | None = None, subject: str | None = None
    ) -> list[AuditEntry]:
        """Entries with ``since <= at < until`` (UTC), in the order they were written."""
        query = sa.select(audit_log).order_by(audit_log.c.entry)
        if since is not None:
            query = query.where(audit_log.c.at >= since)
        if until is not None:
            query = query.where(audit_log.c.at < until)
        if subject is not None:
            query = query.where(audit_log.c.subject == subject)
        with self._ledger.read() as connection:
            return [AuditEntry(*row) for row in connection.execute(query)]

    def _one(self, query: sa.Select[Any]) -> Revision | None:
        with self._ledger.read() as connection:
            row = connection.execute(query).mappings().one_or_none()
        return None if row is None else Revision(**row)

    def _versions(self, query: sa.Select[Any]) -> list[PolicyVersion]:
        with self._ledger.read() as connection:
            return [PolicyVersion(*row) for row in connection.execute(query)]


def _row(value: Revision | PolicyVersion | AuditEntry | ReadFile) -> dict[str, object]:
    return {name: getattr(value, name) for name in value.__slots__}
