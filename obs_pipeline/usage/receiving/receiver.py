"""The receiver: an export request in, its usage on the disk, and moved into the landing folder as time goes by.

Which mapping reads a signal is decided here. No HTTP: statuses and headers are for the room that serves.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Final

from obs_pipeline.usage.inbox import resolve_mapping
from obs_pipeline.usage.receiving.exports import Owner, Signal, Taken, taken
from obs_pipeline.usage.receiving.spool import Spool, SpoolLimits

MAPPING_OF: Final[Mapping[Signal, str]] = {"traces": "otlp", "logs": "claude_code_otel"}
"""The mapping, and with it the folder of the landing folder, of what a signal brings."""

_LOOK_AGAIN_SECONDS: Final = 2.0


class Receiver:
    """Takes requests in until it is left: ``with Receiver(…) as receiver``. Safe to use from many threads."""

    def __init__(
        self,
        spool: Path,
        landing: Path,
        mappings: Path,
        clock: Callable[[], datetime],
        limits: SpoolLimits | None = None,
    ) -> None:
        self._mappings = {signal: resolve_mapping(name, mappings) for signal, name in MAPPING_OF.items()}
        self._spool = Spool(spool, landing, limits or SpoolLimits(), clock)
        self._stopped = threading.Event()
        self._mover = threading.Thread(target=self._move_on, name="otlp-spool", daemon=True)

    def __enter__(self) -> Receiver:
        self._mover.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._mover.join()
        self._spool.close()

    def receive(self, signal: Signal, body: bytes, owner: Owner, *, is_json: bool) -> Taken:
        """Store the calls of a request; they survive anything from here on.

        Raises:
            BadExport: it is no such request.
            SpoolFull: it cannot be stored now, and nothing of it is.
        """
        found = taken(body, signal, self._mappings[signal], owner, is_json=is_json)
        self._spool.append(MAPPING_OF[signal], found.lines)
        return found

    def _move_on(self) -> None:
        while not self._stopped.wait(_LOOK_AGAIN_SECONDS):
            try:
                self._spool.roll()
            except OSError:
                # What waits stays in the spool, and is tried again.
                continue
