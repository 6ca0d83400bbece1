"""What the role of the application may do in a PostgreSQL ledger: everything it needs, and to append-only tables only that.

The role that migrates owns the tables and could take the triggers away; the application can run as another one, which
then cannot change or remove a row of the audit log, nor give itself the right to.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from pkgutil import iter_modules
from typing import Final

from sqlalchemy.dialects import postgresql

from obs_pipeline import storage
from obs_pipeline.storage.ledger import metadata
from obs_pipeline.storage.policy_store import APPEND_ONLY

_READ: Final = ("alembic_version",)


def grants(role: str, schema: str = "public") -> Iterator[str]:
    """The statements for ``role``, to be run in the ledger's database by the owner of its tables, in one transaction.

    They take back what the role may do and give it what it needs; running them again after a migration is right.
    """
    quoted = postgresql.dialect().identifier_preparer  # type: ignore[no-untyped-call]
    who = quoted.quote(role)

    def named(tables: list[str]) -> str:
        return ", ".join(f"{quoted.quote(schema)}.{quoted.quote(table)}" for table in tables)

    append_only = sorted(table.name for table in APPEND_ONLY)
    others = sorted(_tables() - set(append_only))
    yield f"REVOKE ALL ON {named([*append_only, *others, *_READ])} FROM {who};"
    yield f"GRANT USAGE ON SCHEMA {quoted.quote(schema)} TO {who};"
    yield f"GRANT SELECT ON {named(list(_READ))} TO {who};"
    yield f"GRANT SELECT, INSERT ON {named(append_only)} TO {who};"
    yield f"GRANT SELECT, INSERT, UPDATE, DELETE ON {named(others)} TO {who};"
    yield f"GRANT USAGE ON ALL SEQUENCES IN SCHEMA {quoted.quote(schema)} TO {who};"


def _tables() -> set[str]:
    # A module declares its tables when it is imported.
    for module in iter_modules(storage.__path__):
        if not module.ispkg:
            import_module(f"{storage.__name__}.{module.name}")
    return set(metadata.tables)
