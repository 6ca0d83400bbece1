"""Locks between processes of one machine, released by the system when a holder dies."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from obs_pipeline.errors import ObsError


class Busy(ObsError):
    """Another process does the same work right now."""

    exit_code = 4


@contextmanager
def exclusive(folder: Path, name: str, *, wait_seconds: float = 600) -> Iterator[None]:
    """Hold the lock ``name``; others wait, at most ``wait_seconds``.

    Raises:
        Busy: the lock stayed taken.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / f"{name}.lock")
    try:
        lock.acquire(timeout=wait_seconds)
    except Timeout:
        raise Busy(f"Another process is still at '{name}' after {wait_seconds:.0f} s; try again later.") from None
    try:
        yield
    finally:
        lock.release()
