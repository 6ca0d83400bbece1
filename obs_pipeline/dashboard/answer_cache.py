"""Where answers are kept for a while: in this process, or in a Redis server that several share.

Here: keeping and finding text under a key, and what happens while the shared cache is away. A cache is only ever a saving of
time: one that is away or hangs is looked past, said so, and tried again by a single request every few seconds. What makes
a key, and for how long an answer counts, is not decided here.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable
from typing import Any, Final

from cashews import Cache
from cashews.exceptions import BackendNotAvailableError, CacheError
from redis.exceptions import RedisError

from obs_pipeline.errors import ObsError

PATIENCE: Final = 0.25
"""Seconds after which a shared cache counts as away: making an answer anew takes less."""
REST: Final = 3.0
"""Seconds for which a cache that is away is not asked."""

_ENTRIES: Final = 2000
_CONNECTIONS: Final = 20
_AWAY: Final = (CacheError, RedisError, OSError, TimeoutError, ValueError)


class CacheUnusable(ObsError):
    """The cache that was named cannot be used."""


class AnswerCache:
    """Text under keys. One an event loop. ``problem`` says why the cache is not used now; None while it is.

    ``url`` is ``mem://`` or that of a Redis server. ``ticks`` is a clock in seconds that never goes back.

    Raises:
        CacheUnusable: the URL names no cache that can be used.
    """

    def __init__(self, url: str, ticks: Callable[[], float] = time.monotonic) -> None:
        self.where = url.split("@")[-1]
        self.problem: str | None = None
        self.faults = 0
        self._ticks = ticks
        self._rests_until = -math.inf
        self._cache = _opened(url)

    async def get(self, key: str) -> str | None:
        """What is kept under a key; None where nothing is, or the cache is away."""
        found = await self._asked(lambda: self._cache.get(key))
        return found if isinstance(found, str) else None

    async def set(self, key: str, text: str, seconds: float) -> None:
        await self._asked(lambda: self._cache.set(key, text, expire=seconds))

    async def close(self) -> None:
        await self._cache.close()

    async def _asked(self, ask: Callable[[], Any]) -> Any:
        if self.problem is not None:
            now = self._ticks()
            if now < self._rests_until:
                return None
            # Moved before asking, so that the others go on without it while one tries.
            self._rests_until = now + REST
        try:
            async with asyncio.timeout(PATIENCE):
                found = await ask()
        except _AWAY as error:
            self.faults += 1
            self._rests_until = self._ticks() + REST
            self.problem = f"The cache {self.where} cannot be used now ({_reason(error)}); every answer is made anew."
            return None
        self.problem = None
        return found


def _opened(url: str) -> Cache:
    cache = Cache()
    shared = {
        "suppress": False, "pickle_type": "json", "max_connections": _CONNECTIONS, "wait_for_connection_timeout": PATIENCE,
        "socket_timeout": PATIENCE, "socket_connect_timeout": PATIENCE,
    }  # fmt: skip
    try:
        cache.setup(url, **({"size": _ENTRIES} if url.startswith("mem:") else shared))
    except (BackendNotAvailableError, ValueError, TypeError) as error:
        where = url.split("@")[-1]
        raise CacheUnusable(
            f"The cache {where} cannot be used: {error} Use mem:// to keep answers in this process."
        ) from None
    return cache


def _reason(error: BaseException) -> str:
    inner = error.__cause__ or error
    return f"{type(inner).__name__}: {inner}"[:200] if str(inner) else type(inner).__name__
