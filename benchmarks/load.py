"""The load: requests over plain sockets, so many connections with so many requests in flight each.

Knows the two protocols only as bytes: what a request is, and where a reply ends.
"""

from __future__ import annotations

import selectors
import socket
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

BODY = b'{"test": 123456}'


@dataclass(frozen=True)
class Protocol:
    """How a request looks, and how many whole replies some bytes hold, with what is left of them."""

    request: bytes
    split: Callable[[bytes], tuple[int, bytes]]


@dataclass(frozen=True)
class Load:
    """So many connections, so many requests in flight on each, so many requests in all.

    Attributes:
        reconnect: a new connection for each request.
    """

    title: str
    connections: int
    in_flight: int
    requests: int
    reconnect: bool = False


def _frames(data: bytes) -> tuple[int, bytes]:
    """Count whole frames."""
    position = count = 0
    while len(data) - position >= 4:
        end = position + 4 + int.from_bytes(data[position : position + 4], "big")
        if end > len(data):
            break
        position = end
        count += 1
    return count, data[position:]


def _responses(data: bytes) -> tuple[int, bytes]:
    """Count whole HTTP responses with a Content-Length."""
    count = 0
    while (head := data.find(b"\r\n\r\n")) >= 0:
        lowered = data[:head].lower()
        start = lowered.index(b"content-length:") + 15
        end = head + 4 + int(lowered[start:].split(b"\r\n", 1)[0])
        if end > len(data):
            break
        assert data[9:12] == b"200", data[:head]
        data = data[end:]
        count += 1
    return count, data


FRAMES = Protocol((len(BODY) + 2).to_bytes(4, "big") + b"\x16\x00" + BODY, _frames)
HTTP = Protocol(
    b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(BODY)
    + BODY,
    _responses,
)


def run(port: int, protocol: Protocol, load: Load) -> float:
    """Put the load on a server; return the median time of a reply, in seconds, where one request is in flight."""
    if load.reconnect:
        return _one_by_one(port, protocol, load)
    sockets = [_connected(port) for _ in range(load.connections)]
    selector = selectors.DefaultSelector()
    rest = dict.fromkeys(sockets, b"")
    sent_at: dict[socket.socket, float] = {}
    latencies: list[float] = []
    for sock in sockets:
        selector.register(sock, selectors.EVENT_READ)
        sent_at[sock] = time.perf_counter()
        sock.sendall(protocol.request * load.in_flight)
    done = 0
    while done < load.requests:
        for key, _ in selector.select():
            sock = key.fileobj
            assert isinstance(sock, socket.socket)
            count, rest[sock] = protocol.split(rest[sock] + sock.recv(65536))
            if count:
                now = time.perf_counter()
                latencies.append(now - sent_at[sock])
                sent_at[sock] = now
                done += count
                sock.sendall(protocol.request * count)
    for sock in sockets:
        sock.close()
    return statistics.median(latencies)


def _one_by_one(port: int, protocol: Protocol, load: Load) -> float:
    latencies = []
    for _ in range(load.requests):
        began = time.perf_counter()
        with _connected(port) as sock:
            sock.sendall(protocol.request)
            data = b""
            while not protocol.split(data)[0]:
                data += sock.recv(65536)
        latencies.append(time.perf_counter() - began)
    return statistics.median(latencies)


def _connected(port: int) -> socket.socket:
    sock = socket.create_connection(("127.0.0.1", port))
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock
