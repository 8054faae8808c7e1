"""The load: requests over a number of connections, with a number of requests in flight on each.

A protocol is reduced to the bytes of a request and a function that finds the ends of replies.
"""

from __future__ import annotations

import json
import selectors
import socket
import ssl
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import msgpack

if TYPE_CHECKING:
    from processes import Process

BODY = b'{"test": 123456}'
MAP = {
    "id": 123456789,
    "name": "Ada Lovelace",
    "email": "ada@example.org",
    "tags": ["a", "b", "c"],
    "ok": True,
    "score": 12.5,
    "test": None,
}


@dataclass(frozen=True)
class Protocol:
    """The bytes of a request, and a function that counts the whole replies in some bytes and returns the rest.

    ``request * n`` returns the bytes of ``n`` requests.
    """

    request: Any
    split: Callable[[bytes], tuple[int, bytes]]
    name: str = ""


@dataclass(frozen=True)
class Load:
    """A number of connections, and of requests in flight on each.

    Attributes:
        reconnect: open a new connection for each request.
    """

    title: str
    connections: int
    in_flight: int
    reconnect: bool = False


def count_frames(data: bytes) -> tuple[int, bytes]:
    """Count whole frames, and return the rest."""
    position = count = 0
    while len(data) - position >= 4:
        end = position + 4 + int.from_bytes(data[position : position + 4], "big")
        if end > len(data):
            break
        position = end
        count += 1
    return count, data[position:]


def _responses(data: bytes) -> tuple[int, bytes]:
    """Count whole HTTP responses with a Content-Length, and return the rest."""
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


def _framed(encoding: int, payload: bytes) -> bytes:
    return (len(payload) + 2).to_bytes(4, "big") + bytes((22, encoding)) + payload


def _large(encoding: int, size: int) -> bytes:
    """Return a packet whose payload is one string of nearly this size."""
    fields = {"test": "x" * (size - 64)}
    return _framed(encoding, json.dumps(fields).encode() if encoding == 0 else msgpack.packb(fields))


FRAMES = Protocol(_framed(0, BODY), count_frames)
MAP_JSON = Protocol(_framed(0, json.dumps(MAP, separators=(",", ":")).encode()), count_frames)
MAP_ZIPROTO = Protocol(_framed(1, msgpack.packb(MAP)), count_frames)
LARGE_JSON = Protocol(_large(0, 1024 * 1024), count_frames, "JSON")
LARGE_ZIPROTO = Protocol(_large(1, 1024 * 1024), count_frames, "ZiProto")
HTTP = Protocol(
    b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(BODY)
    + BODY,
    _responses,
)


def operation(name: str) -> Protocol:
    """Return the protocol of a small JSON packet for an operation."""
    return Protocol(_framed(0, json.dumps({"op": name, "test": 123456}).encode()), count_frames, name)


def resized(protocol: Protocol, size: int) -> Protocol:
    """Return the protocol of a large packet for another size."""
    return replace(protocol, request=_large(protocol.request[5], size))


@dataclass(frozen=True)
class Sample:
    """Microseconds of server CPU per request, and of the median latency if one request is in flight."""

    cpu: float
    latency: float | None


def run(process: Process, protocol: Protocol, load: Load, seconds: float) -> Sample:
    """Put the load on a server for some seconds, and return the cost of a request.

    The measurement begins and ends with an idle server, so that its CPU time is exact to the nanosecond. It begins when
    all connections have been served once.
    """
    if load.reconnect:
        return _one_by_one(process, protocol, seconds)
    sockets = [connected(process) for _ in range(load.connections)]
    _exchange(sockets, protocol, 1, 0.0)
    before = process.cpu_seconds()
    replies, latencies = _exchange(sockets, protocol, load.in_flight, seconds)
    cpu = process.cpu_seconds() - before
    for sock in sockets:
        sock.close()
    return Sample(cpu / replies * 1e6, statistics.median(latencies) * 1e6 if load.in_flight == 1 else None)


def _exchange(
    sockets: list[socket.socket], protocol: Protocol, in_flight: int, seconds: float
) -> tuple[int, list[float]]:
    """Keep requests in flight on each connection for some seconds; return the number of replies, and latencies."""
    selector = selectors.DefaultSelector()
    rest = dict.fromkeys(sockets, b"")
    awaited = dict.fromkeys(sockets, in_flight)
    latencies: list[float] = []
    began = time.perf_counter()
    sent_at = dict.fromkeys(sockets, began)
    for each in sockets:
        selector.register(each, selectors.EVENT_READ)
        each.sendall(protocol.request * in_flight)
    replies = 0
    while selector.get_map():
        for key, _ in selector.select():
            sock = key.fileobj
            assert isinstance(sock, socket.socket)
            data = sock.recv(1 << 20)
            assert data, "the server has closed the connection"
            count, rest[sock] = protocol.split(rest[sock] + data)
            if not count:
                continue
            now = time.perf_counter()
            latencies.append(now - sent_at[sock])
            replies += count
            awaited[sock] -= count
            if now - began < seconds:
                sent_at[sock] = now
                awaited[sock] += count
                sock.sendall(protocol.request * count)
            elif not awaited[sock]:
                selector.unregister(sock)
    return replies, latencies


def _one_by_one(process: Process, protocol: Protocol, seconds: float) -> Sample:
    latencies = []
    before = process.cpu_seconds()
    began = time.perf_counter()
    while (asked := time.perf_counter()) - began < seconds:
        with connected(process) as sock:
            sock.sendall(protocol.request)
            data = b""
            while not protocol.split(data)[0]:
                data += sock.recv(65536)
        latencies.append(time.perf_counter() - asked)
    return Sample((process.cpu_seconds() - before) / len(latencies) * 1e6, statistics.median(latencies) * 1e6)


def connected(process: Process) -> socket.socket:
    """Connect to a server, with TLS if it uses TLS."""
    sock = socket.create_connection(("127.0.0.1", process.port))
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if process.ca is None:
        return sock
    return ssl.create_default_context(cafile=process.ca).wrap_socket(sock, server_hostname="127.0.0.1")
