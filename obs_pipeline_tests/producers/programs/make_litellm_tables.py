"""LiteLLM's own tables in an empty PostgreSQL database, by the migrations it ships. ``python make_litellm_tables.py URL``."""

import sys
from pathlib import Path

import litellm_proxy_extras
import psycopg

migrations = sorted(Path(litellm_proxy_extras.__file__).parent.glob("migrations/*/migration.sql"))
with psycopg.connect(sys.argv[1], autocommit=True) as connection:
    for path in migrations:
        connection.execute(path.read_text())
print(len(migrations))
