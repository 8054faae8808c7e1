"""Listening sockets: binding them, and accepting connections."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import socket
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final

import trio

from asyncapy_core.addresses import UNIX, bound_address, is_unix
from asyncapy_core.errors import BindError
from asyncapy_core.logs import RateLimited

UNIX_FAMILY: Final[int | None] = getattr(socket, "AF_UNIX", None)
"""None on systems where Python has no Unix domain sockets, such as Windows."""

BACKLOG: Final = 1024
ACCEPT_BURST: Final = 64
EXHAUSTED: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
EXHAUSTED_PAUSE: Final = 0.1
BROKEN: Final = frozenset({errno.EBADF, errno.EINVAL, errno.ENOTSOCK, errno.EOPNOTSUPP})
"""Errors of the listener itself, after which it accepts nothing; all others concern one peer."""

_ADVICE = {
    errno.EADDRINUSE: "stop the program that uses it, or give another port (0 picks a free one)",
    errno.EACCES: "ports below 1024 need privileges; give a higher one",
    errno.EADDRNOTAVAIL: "this machine has no such address; 127.0.0.1 is local, 0.0.0.0 all of IPv4, :: all of IPv6",
}

_UNIX_ADVICE = {
    errno.EADDRINUSE: "another server listens there, or a file of that name is in the way; give another path",
    errno.EACCES: "this user may not write to its folder; give another path",
    errno.ENOENT: "its folder does not exist; make it, or give another path",
}


async def open_listeners(addresses: Sequence[str], port: int) -> list[socket.socket]:
    """Bind and listen on every address, and on all addresses of a host name; all TCP listeners share one port.

    Args:
        addresses: host names, IPv4 and IPv6 addresses, and ``unix:`` with the path of a Unix domain socket.
        port: a TCP port; 0 picks a free one.

    Raises:
        BindError: an address is not available; the message gives the address, the reason and the remedy.
    """
    listeners: list[socket.socket] = []
    try:
        for address in addresses:
            if is_unix(address):
                listeners.append(_open_unix(address.removeprefix(UNIX)))
            else:
                listeners.extend(await _open_tcp(address, _port(listeners) or port))
    except BaseException:  # raised again; no listener stays open
        for listener in listeners:
            close_listener(listener)
        raise
    return listeners


async def _open_tcp(addr: str, port: int) -> list[socket.socket]:
    try:
        found = await trio.socket.getaddrinfo(addr, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise BindError(f"cannot listen on {addr!r}: {reason}; give an IP address or a host name") from error
    listeners: list[socket.socket] = []
    try:
        for family, kind, protocol, _, address in dict.fromkeys(found):
            listeners.append(_listen(family, kind, protocol, (address[0], _port(listeners) or port, *address[2:])))
    except OSError as error:
        for listener in listeners:
            listener.close()
        raise _bind_error(f"{addr}:{port}", error, _ADVICE) from error
    return listeners


def _open_unix(path: str) -> socket.socket:
    """Listen on a path. A socket file on which no server listens any more is replaced.

    A path that begins with ``@``, or a null character, is a name in Linux's abstract namespace, without a file.
    """
    if UNIX_FAMILY is None:
        raise BindError(f"cannot listen on {UNIX}{path}: no Unix domain sockets on this system; give an IP address")
    try:
        if path in {"", "@", "\0"}:
            raise ValueError("the path is empty")
        if path[:1] in {"@", "\0"}:
            return _listen(UNIX_FAMILY, socket.SOCK_STREAM, 0, "\0" + path[1:])
        if "\0" in path:
            raise ValueError("a path has no null characters")
        if Path(path).is_socket() and not _is_served(UNIX_FAMILY, path):
            Path(path).unlink()
        listener = UnixListener(UNIX_FAMILY)
        _listen_on(listener, path)
    except ValueError as error:
        raise BindError(f"cannot listen on {UNIX}{path!r}: {error}; give the path of a file") from error
    except OSError as error:
        raise _bind_error(UNIX + path, error, _UNIX_ADVICE) from error
    listener.remember_file(Path(path).absolute())
    return listener


class UnixListener(socket.socket):
    """A listening Unix domain socket that removes its own file, and no other, when it is closed."""

    def __init__(self, family: int) -> None:
        super().__init__(family, socket.SOCK_STREAM)
        self._file: tuple[Path, int, int] | None = None

    def remember_file(self, path: Path) -> None:
        """Note the file of this socket, just after bind."""
        with contextlib.suppress(OSError):  # removed already
            found = path.lstat()
            self._file = (path, found.st_dev, found.st_ino)

    def remove_file(self) -> None:
        """Remove the file, unless another has replaced it. While this socket is open, no other file has its inode."""
        if self._file is None:
            return
        path, device, inode = self._file
        with contextlib.suppress(OSError):  # removed already
            found = path.lstat()
            if (found.st_dev, found.st_ino) == (device, inode):
                path.unlink()


def _is_served(family: int, path: str) -> bool:
    with socket.socket(family) as probe:
        probe.settimeout(1)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            return False
        except TimeoutError:
            pass  # a busy server listens
        return True


def _is_unix_socket(listener: socket.socket) -> bool:
    return UNIX_FAMILY is not None and listener.family == UNIX_FAMILY


def _port(listeners: Iterable[socket.socket]) -> int:
    """Return the port of the first TCP listener, or 0."""
    return next((int(listener.getsockname()[1]) for listener in listeners if not _is_unix_socket(listener)), 0)


def _bind_error(where: str, error: OSError, advice: Mapping[int, str]) -> BindError:
    reason = os.strerror(error.errno) if error.errno else str(error)
    hint = advice.get(error.errno or 0, "give another address")
    failure = BindError(f"cannot listen on {where}: {reason}; {hint}")
    failure.errno = error.errno
    return failure


def close_listener(listener: socket.socket) -> None:
    """Close a listener, and remove the file that `open_listeners` created for it. Closing twice does nothing."""
    if listener.fileno() < 0:
        return
    if isinstance(listener, UnixListener):
        listener.remove_file()
    listener.close()


def _listen(family: int, kind: int, protocol: int, address: tuple[object, ...] | str) -> socket.socket:
    listener = socket.socket(family, kind, protocol)
    _listen_on(listener, address)
    return listener


def _listen_on(listener: socket.socket, address: tuple[object, ...] | str) -> None:
    """Bind a socket and listen; close it if that fails."""
    try:
        listener.settimeout(0)
        if os.name == "posix" and not _is_unix_socket(listener):
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if listener.family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listener.bind(address)
        listener.listen(BACKLOG)
    except BaseException:  # raised again; the socket does not stay open
        listener.close()
        raise


def check_listening(listener: socket.socket) -> None:
    """Raise BindError for a socket that does not listen."""
    if hasattr(socket, "SO_ACCEPTCONN") and not listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        raise BindError(f"{listener!r} does not listen; call its listen() before it is served")


async def accept_forever(
    listener: socket.socket, accepted: Callable[[socket.socket, str], None], log: logging.Logger
) -> None:
    """Accept connections until cancelled, and call ``accepted(socket, peer_host)`` for each; then close the listener.

    The host of peers on a Unix domain socket is ``unix:`` with the socket's path: they have no address of their own.

    If the process runs out of file descriptors, this logs an error, at most once a second, pauses, and goes on. It
    returns after `stop_accepting`.
    """
    should_log = RateLimited()
    try:
        while listener.fileno() >= 0:
            await trio.lowlevel.wait_readable(listener)
            for _ in range(ACCEPT_BURST):
                try:
                    _accept(listener, accepted)
                except BlockingIOError:
                    break
                except OSError as error:
                    if error.errno in EXHAUSTED:
                        if should_log():
                            log.error("{Server} Cannot accept connections: %s", error.strerror)
                        await trio.sleep(EXHAUSTED_PAUSE)
                        break
                    if listener.fileno() < 0:
                        return  # closed by `stop_accepting`
                    if error.errno in BROKEN:
                        raise
    except trio.ClosedResourceError:
        return  # closed by `stop_accepting` as well
    finally:
        if listener.fileno() >= 0:
            trio.lowlevel.notify_closing(listener)
            close_listener(listener)


def stop_accepting(
    listeners: Iterable[socket.socket], accepted: Callable[[socket.socket, str], None], *, shared: bool
) -> None:
    """Close listeners at once. Closing twice does nothing.

    The system resets the connections that it has queued and that no process has accepted. So they are accepted before.

    Args:
        listeners: the listeners.
        accepted: as for `accept_forever`.
        shared: whether another process may accept the queued connections.
    """
    for listener in listeners:
        if listener.fileno() < 0:
            continue
        if isinstance(listener, UnixListener):
            listener.remove_file()  # first, so that no peer connects after the last accept
        for _ in range(0 if shared else BACKLOG):
            try:
                _accept(listener, accepted)
            except OSError as error:
                if isinstance(error, BlockingIOError) or error.errno in EXHAUSTED | BROKEN:
                    break
        trio.lowlevel.notify_closing(listener)
        close_listener(listener)


def _accept(listener: socket.socket, accepted: Callable[[socket.socket, str], None]) -> None:
    """Accept a connection.

    Raises:
        OSError: there is none, or it has failed.
    """
    connected, address = listener.accept()
    connected.settimeout(0)
    if _is_unix_socket(listener):
        host = bound_address(listener.getsockname())
    else:
        host = address[0]
        with contextlib.suppress(OSError):  # a peer that has left is noticed by the first read
            connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    accepted(connected, host)  # which owns it from now on
