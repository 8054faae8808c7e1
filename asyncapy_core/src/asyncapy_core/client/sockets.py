"""`connect`: connects a socket of the standard library to a server, with one deadline for everything.

Knows nothing of packets. `AsyncClient` uses trio's functions for this, which try addresses concurrently.
"""

from __future__ import annotations

import socket
import threading
import time
from typing import TYPE_CHECKING, Any, TypeAlias

from asyncapy_core.client.connecting import handshake_failed, server_name, unreachable

if TYPE_CHECKING:
    from asyncapy_core.client.connecting import TlsOptions

_Addresses: TypeAlias = list[tuple[Any, ...]]
"""The result of `socket.getaddrinfo`."""


def remaining(deadline: float | None) -> float | None:
    """Return the seconds until a deadline of `time.monotonic`, None without one.

    Raises:
        TimeoutError: it has passed.
    """
    if deadline is None:
        return None
    seconds = deadline - time.monotonic()
    if seconds <= 0:
        raise TimeoutError("timed out")
    return seconds


def has_expired(error: OSError) -> bool:
    """Return whether an error of a socket means that the timeout of the socket has passed.

    The ETIMEDOUT of the system is a TimeoutError, too. It ends the connection, with any timeout of the socket.
    """
    return isinstance(error, TimeoutError) and error.errno is None


def connect(hostname: str, port: int, tls: TlsOptions | None, deadline: float | None) -> socket.socket:
    """Connect to a server, and verify its certificate if TLS is on.

    Args:
        hostname: a host name or IP address.
        port: the TCP port.
        tls: the options of TLS; None without TLS.
        deadline: the time of `time.monotonic` at which to give up; None for never.

    Raises:
        TimeoutError: no address answered in time.
        NotConnected: no address accepted a connection, or it broke during the TLS handshake.
        RemoteError: the TLS handshake failed.
    """
    try:
        connected = open_socket(hostname, port, deadline)
    except (OSError, ValueError) as error:  # a UnicodeError is a ValueError
        if isinstance(error, OSError) and has_expired(error):
            raise
        raise unreachable(error, hostname, port) from error
    connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if tls is None:
        return connected
    try:
        connected.settimeout(remaining(deadline))
        return tls.context().wrap_socket(connected, server_hostname=server_name(hostname))
    except (OSError, ValueError) as error:  # ValueError: not a name for a certificate
        connected.close()
        raise handshake_failed(error, hostname, port) from error
    except BaseException:  # raised again; the connection does not stay open
        connected.close()
        raise


def open_socket(hostname: str, port: int, deadline: float | None) -> socket.socket:
    """Connect to the first address of a host name that accepts a connection.

    The addresses are tried one after the other. Each gets an equal share of the remaining time, so that an address
    that does not answer leaves time for those after it.

    Args:
        hostname: a host name or IP address.
        port: the TCP port.
        deadline: the time of `time.monotonic` at which to give up, the look-up of the name included; None for never.

    Raises:
        TimeoutError: no address answered in time.
        OSError: no address accepted a connection. The cause is an exception group if there were several.
        UnicodeError, ValueError: the host name is not valid.
    """
    errors: list[OSError] = []
    addresses = _look_up(hostname, port, deadline)
    for index, (family, kind, protocol, _, address) in enumerate(addresses):
        sock = None
        try:
            seconds = remaining(deadline)
            sock = socket.socket(family, kind, protocol)
            sock.settimeout(None if seconds is None else seconds / (len(addresses) - index))
            sock.connect(address)
        except BaseException as error:  # all but OSErrors are raised again; the socket does not stay open
            if sock is not None:
                sock.close()
            if not isinstance(error, OSError):
                raise
            errors.append(error)
        else:
            return sock
    if len(errors) == 1 or all(has_expired(error) for error in errors):
        raise errors[0]
    raise OSError(f"no address of {hostname} accepted a connection") from ExceptionGroup("addresses", errors)


def _look_up(hostname: str, port: int, deadline: float | None) -> _Addresses:
    """Return the addresses of a host name. With a deadline, a thread waits for the resolver, which has no timeout."""
    try:
        return list(socket.getaddrinfo(hostname, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST))
    except socket.gaierror:  # not an IP address
        seconds = remaining(deadline)
    found: _Addresses = []
    failures: list[BaseException] = []

    def resolve() -> None:
        try:
            found.extend(socket.getaddrinfo(hostname, port, type=socket.SOCK_STREAM))
        except BaseException as error:  # raised in the thread of the caller
            failures.append(error)

    if seconds is None or not _in_thread(resolve, seconds):
        resolve()
    if failures:
        raise failures[0]
    return found


def _in_thread(function: Any, seconds: float) -> bool:
    """Run a function in a thread, and wait for its end; return False if no thread can be started.

    Raises:
        TimeoutError: it has not ended in time; the thread is left behind.
    """
    thread = threading.Thread(target=function, name="asyncapy resolver", daemon=True)
    try:
        thread.start()
    except RuntimeError:  # the limit of threads, or the end of the interpreter
        return False
    thread.join(seconds)
    if thread.is_alive():
        raise TimeoutError("timed out")
    return True
