"""The steps by which the ledger got its tables, run by Alembic."""
