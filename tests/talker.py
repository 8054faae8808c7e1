"""A peer of version 23 in a thread, for clients that block."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from numbered_peer import KINDS, numbered


class Talker:
    """One accepted connection of a peer."""

    def __init__(self, connected: socket.socket) -> None:
        self._socket = connected
        self._buffer = b""

    def read(self) -> tuple[str, int] | None:
        """Return the kind and the number of the next packet; None at the end of the stream."""
        while len(self._buffer) < 4 or len(self._buffer) < 4 + int.from_bytes(self._buffer[:4], "big"):
            try:
                data = self._socket.recv(65536)
            except ConnectionResetError:
                data = b""
            if not data:
                return None
            self._buffer += data
        size = 4 + int.from_bytes(self._buffer[:4], "big")
        kind, number = KINDS[self._buffer[6]], int.from_bytes(self._buffer[7:11], "big")
        self._buffer = self._buffer[size:]
        return kind, number

    def send(self, data: bytes) -> None:
        self._socket.sendall(data)

    def reset(self) -> None:
        """Let the end of the connection be a reset."""
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    def answer_all(self) -> None:
        while (got := self.read()) is not None:
            if got[0] == "REQUEST":
                self.send(numbered("REPLY", got[1], {"n": got[1]}))


@contextmanager
def talking(*talks: Callable[[Talker], None], at_once: bool = False) -> Iterator[int]:
    """Accept one connection for each function, and run it; yield the port.

    Args:
        talks: the functions.
        at_once: run them at the same time, and not one after the other.
    """
    threads: list[threading.Thread] = []

    def run(talk: Callable[[Talker], None], connected: socket.socket) -> None:
        with connected:
            connected.settimeout(10)
            talk(Talker(connected))

    def accept() -> None:
        for talk in talks:
            connected, _ = listener.accept()
            threads.append(threading.Thread(target=run, args=(talk, connected)))
            threads[-1].start()
            if not at_once:
                threads[-1].join()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threads.append(threading.Thread(target=accept))
        threads[0].start()
        yield listener.getsockname()[1]
        for thread in threads:
            thread.join(10)
            assert not thread.is_alive()
