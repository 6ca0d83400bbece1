"""A server that speaks S3 on the loopback interface, and the variables that lead programs to it.

Import ``object_store`` into the test module. One server a session; each test may use prefixes of its own.
"""

from __future__ import annotations

import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.error import URLError

import pytest

BUCKET = "usage"
_STARTED_WITHIN = 60.0


@dataclass(frozen=True)
class ObjectStore:
    """A running server with one bucket."""

    address: str

    @property
    def environment(self) -> dict[str, str]:
        """What an operator sets for a store that is not Amazon's."""
        return {
            "AWS_ENDPOINT_URL": self.address,
            "AWS_ALLOW_HTTP": "true",
            "AWS_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": "tests",
            "AWS_SECRET_ACCESS_KEY": "not-a-secret",
        }

    def uri(self, prefix: str) -> str:
        return f"s3://{BUCKET}/{prefix}"


@pytest.fixture(scope="session")
def object_store() -> Iterator[ObjectStore]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    program = Path(sys.executable).with_name("moto_server")
    nobody = subprocess.DEVNULL
    server = subprocess.Popen([program, "-H", "127.0.0.1", "-p", str(port)], stdout=nobody, stderr=nobody)
    try:
        store = ObjectStore(f"http://127.0.0.1:{port}")
        _make_bucket(store)
        yield store
    finally:
        server.kill()
        server.wait()


def _make_bucket(store: ObjectStore) -> None:
    request = urllib.request.Request(f"{store.address}/{BUCKET}", method="PUT")
    until = time.monotonic() + _STARTED_WITHIN
    while True:
        try:
            urllib.request.urlopen(request, timeout=10).close()
            return
        except URLError:
            if time.monotonic() > until:
                raise
            time.sleep(0.1)
