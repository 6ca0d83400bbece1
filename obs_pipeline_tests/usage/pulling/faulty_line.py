"""A line between whoever pulls and a real server, which can fail as networks do: it hangs, breaks off, or refuses."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from typing import Literal

Fault = Literal["hangs", "breaks off", "refuses"]


class FaultyLine:
    """Hands on what is said in both directions, until it is told to ``fail``."""

    def __init__(self, connect: Callable[[], socket.socket]) -> None:
        self._connect = connect
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listening.getsockname()[1])
        self.fault: Fault | None = None
        self._passes = 0

    def fail(self, fault: Fault, after: int) -> None:
        """From now on, once so many bytes of answers have passed."""
        self.fault, self._passes = fault, after

    def serve(self) -> None:
        with suppress(OSError):
            while True:
                caller, _ = self._listening.accept()
                threading.Thread(target=self._answer, args=(caller,), daemon=True).start()

    def close(self) -> None:
        with suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()

    def _answer(self, caller: socket.socket) -> None:
        if self.fault == "refuses":
            caller.close()
            return
        with closing(caller), closing(self._connect()) as server, suppress(OSError):
            asking = threading.Thread(target=self._ask, args=(caller, server), daemon=True)
            asking.start()
            while part := server.recv(65_536):
                if self.fault:
                    part = part[: self._passes]
                    self._passes -= len(part)
                caller.sendall(part)
                if self.fault and not self._passes:
                    break
            if self.fault == "hangs":
                # Until the caller hangs up.
                asking.join(30)
            caller.shutdown(socket.SHUT_RDWR)

    def _ask(self, caller: socket.socket, server: socket.socket) -> None:
        with suppress(OSError):
            while part := caller.recv(65_536):
                server.sendall(part)
            server.shutdown(socket.SHUT_WR)


@contextmanager
def faulty_line(connect: Callable[[], socket.socket]) -> Iterator[FaultyLine]:
    """A line to whatever ``connect`` connects to."""
    line = FaultyLine(connect)
    thread = threading.Thread(target=line.serve, daemon=True)
    thread.start()
    try:
        yield line
    finally:
        line.close()
        thread.join()
