"""Listening sockets: binding them and accepting what comes.

Knows nothing of packets or sessions: an accepted socket is handed to a function.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import socket
from collections.abc import Callable
from typing import Final

import trio

from asyncapy_core.errors import BindError
from asyncapy_core.logs import RateLimited

BACKLOG: Final = 1024
ACCEPT_BURST: Final = 64
EXHAUSTED: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
EXHAUSTED_PAUSE: Final = 0.1

_ADVICE = {
    errno.EADDRINUSE: "stop the program that uses it, or give another port (0 picks a free one)",
    errno.EACCES: "ports below 1024 need privileges; give a higher one",
    errno.EADDRNOTAVAIL: "this machine has no such address; 127.0.0.1 is local, 0.0.0.0 all of IPv4, :: all of IPv6",
}


async def open_listeners(addr: str, port: int) -> list[socket.socket]:
    """Bind and listen on every address that a host name stands for, all on one port.

    Args:
        addr: a host name, or an IPv4 or IPv6 address.
        port: a TCP port; 0 picks a free one.

    Raises:
        BindError: one of them cannot be had; the message says which, why and what to do.
    """
    try:
        found = await trio.socket.getaddrinfo(addr, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as error:
        raise BindError(f"cannot listen on {addr!r}: {error.strerror}; give an IP address or a host name") from error
    listeners: list[socket.socket] = []
    try:
        for family, kind, protocol, _, address in dict.fromkeys(found):
            bound_port = listeners[0].getsockname()[1] if listeners else port
            listeners.append(_listen(family, kind, protocol, (address[0], bound_port, *address[2:])))
    except OSError as error:
        for listener in listeners:
            listener.close()
        reason = os.strerror(error.errno) if error.errno else str(error)
        advice = _ADVICE.get(error.errno or 0, "give another address or port")
        failure = BindError(f"cannot listen on {addr}:{port}: {reason}; {advice}")
        failure.errno = error.errno
        raise failure from error
    return listeners


def _listen(family: int, kind: int, protocol: int, address: tuple[object, ...]) -> socket.socket:
    listener = socket.socket(family, kind, protocol)
    try:
        listener.settimeout(0)
        if os.name == "posix":
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listener.bind(address)
        listener.listen(BACKLOG)
    except BaseException:  # whatever it is, it goes on, and the socket does not stay open
        listener.close()
        raise
    return listener


async def accept_forever(
    listener: socket.socket, accepted: Callable[[socket.socket, str], None], log: logging.Logger
) -> None:
    """Accept connections until cancelled, and hand each to ``accepted(socket, peer_host)``; close the listener then.

    Without file descriptors to spare it pauses, says so at most once a second, and goes on.
    """
    worth_a_line = RateLimited()
    try:
        while True:
            await trio.lowlevel.wait_readable(listener)
            for _ in range(ACCEPT_BURST):
                try:
                    connected, address = listener.accept()
                except BlockingIOError:
                    break
                except OSError as error:
                    if error.errno in EXHAUSTED:
                        if worth_a_line():
                            log.error("{Server} Cannot accept connections: %s", error.strerror)
                        await trio.sleep(EXHAUSTED_PAUSE)
                        break
                    continue  # this peer has gone already
                connected.settimeout(0)
                with contextlib.suppress(OSError):  # a peer that has gone already is noticed when it is read from
                    connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                accepted(connected, address[0])
    finally:
        trio.lowlevel.notify_closing(listener)
        listener.close()
