"""A TCP proxy that can delay data, cut its connections and refuse new ones while it runs."""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import Self


class TcpProxy:
    """Forwards data between a free port and the port of a server.

    Attributes:
        port: the port of the proxy.
        delay: seconds before each chunk is forwarded, in both directions.
        accepted: the number of connections so far.
        heard: all chunks, each with the number of its connection, whether the client sent it, and its bytes.
    """

    def __init__(self, target: int) -> None:
        self.delay = 0.0
        self.accepted = 0
        self.heard: list[tuple[int, bool, bytes]] = []
        self._target = target
        self._refusing = False
        self._lock = threading.Lock()
        self._cut = threading.Event()
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._threads: list[threading.Thread] = []
        self._listener = self._listen(0)
        self.port: int = self._listener.getsockname()[1]

    def refuse(self) -> None:
        """Refuse new connections; open ones stay."""
        with self._lock:
            self._refusing = True
            _close(self._listener)

    def lead_to(self, target: int) -> None:
        """Connect new clients to another port; open connections stay."""
        self._target = target

    def accept(self) -> None:
        """Accept connections again."""
        with self._lock:
            self._listener = self._listen(self.port)
            self._refusing = False

    def cut(self) -> int:
        """Cut all connections, drop the delayed data, and return the number of connections."""
        with self._lock:
            pairs, self._pairs = self._pairs, []
            self._cut.set()
            self._cut = threading.Event()
        for pair in pairs:
            for sock in pair:
                _close(sock)
        return len(pairs)

    def close(self) -> None:
        self.refuse()
        self.cut()
        for thread in self._threads:
            thread.join(10)
            assert not thread.is_alive(), "a thread of the proxy hangs"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _listen(self, port: int) -> socket.socket:
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", port))
        listener.listen()
        self._start(self._accept_all, listener)
        return listener

    def _start(self, function: object, *args: object) -> None:
        thread = threading.Thread(target=function, args=args, name="tcp-proxy", daemon=True)  # type: ignore[arg-type]  # a method of this class
        self._threads.append(thread)
        thread.start()

    def _accept_all(self, listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            try:
                server = socket.create_connection(("127.0.0.1", self._target), 5)
            except OSError:
                _close(client)
                continue
            server.settimeout(None)
            with self._lock:
                if self._refusing:
                    _close(client)
                    _close(server)
                    return
                self.accepted += 1
                self._pairs.append((client, server))
                cut, number = self._cut, self.accepted
            self._start(self._pump, client, server, cut, (number, True))
            self._start(self._pump, server, client, cut, (number, False))

    def _pump(self, source: socket.socket, sink: socket.socket, cut: threading.Event, label: tuple[int, bool]) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                self.heard.append((*label, data))
                if cut.wait(self.delay):
                    break
                sink.sendall(data)
            else:  # the end of the source's data; the other direction stays open
                sink.shutdown(socket.SHUT_WR)
                return
        _close(source)
        _close(sink)


def _close(sock: socket.socket) -> None:
    """Close a socket, and wake the threads that wait for it."""
    with contextlib.suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)
    sock.close()
