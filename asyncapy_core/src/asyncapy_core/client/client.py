"""`Client`: the synchronous client, on a socket of the standard library. `ReplyDecoder` decodes the replies."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self

from asyncapy_core import defaults
from asyncapy_core.addresses import endpoint
from asyncapy_core.client.connecting import (
    TlsOptions,
    check_port,
    check_timeout,
    client_encodings,
    handshake_failed,
    server_name,
    unreachable,
)
from asyncapy_core.client.failures import failure
from asyncapy_core.client.replies import ReplyDecoder
from asyncapy_core.client.sockets import open_socket, remaining
from asyncapy_core.errors import NotConnected, RemoteError, ReplyTimeout, ServerDisconnected
from asyncapy_core.protocol.frames import Frame
from asyncapy_core.protocol.packet import parse_fields
from asyncapy_core.protocol.wire import ByteOrder

if TYPE_CHECKING:
    import ssl

    from asyncapy_core.plugins.manager import PluginManager

MAX_READ: Final = 256 * 1024
MIN_READ: Final = 4096


class Client:
    """A client for one thread: `connect`, then `send` and `receive` any number of packets, then `disconnect`.

    As a context manager, it disconnects at the end. Replies are matched by their order alone (docs/protocol.md, "A
    session"). So the client disconnects if a reply does not come in time: a late reply would be taken for the next.
    For the same reason, a client belongs to one thread at a time, and to the process that connected it.

    Args:
        byteorder: the byte order of Content-Length, ``"big"`` or ``"little"``; the same as the server's.
        header_size: the size of Content-Length in bytes, 1 to 8; the same as the server's.
        tls: use TLS, and verify the server's certificate and name.
        encoding: the name of an installed codec, the encoding of the session.
        timeout: the most seconds to connect (all addresses of the host name and the TLS handshake together), to send a
            packet, or to receive a reply; None for no limit.
        ssl_context: a TLS context to use instead of one with the system's CA certificates.
        ca_file: a PEM file of CA certificates to use instead of the system's.
        max_packet: the largest Content-Length of a reply accepted, in bytes, 16 MiB by default; None for all that the
            header can express. Memory is allocated for bytes that have arrived, not for those announced.
        raise_failures: let `receive` raise a `FailureReply` for a failure reply of the server.
        plugins: the source of codecs; the installed plugins by default.

    Raises:
        UnknownCodec: no codec has the name ``encoding``.
        ValueError: another argument is out of range, or a TLS option is given with ``tls=False``.
    """

    def __init__(
        self,
        byteorder: ByteOrder = defaults.BYTEORDER,
        header_size: int = defaults.HEADER_SIZE,
        tls: bool = True,  # noqa: FBT001, FBT002  # the documented signature
        encoding: str = "json",
        timeout: float | None = defaults.TIMEOUT,
        *,
        ssl_context: ssl.SSLContext | None = None,
        ca_file: str | os.PathLike[str] | None = None,
        max_packet: int | None = defaults.MAX_REPLY,
        raise_failures: bool = False,
        plugins: PluginManager | None = None,
    ) -> None:
        self._tls = TlsOptions(tls, ssl_context, ca_file)
        check_timeout(timeout)
        self._encodings = client_encodings(plugins, header_size, byteorder, max_packet)
        self._encoding = self._encodings.by_name(encoding)
        self._socket: socket.socket | None = None
        self._replies: ReplyDecoder | None = None
        self._fault: OSError | None = None
        self._early: Frame | None = None
        self._process = 0
        self.tls = tls
        self.encoding = encoding
        self.timeout = timeout
        self.raise_failures: bool = raise_failures

    def connect(self, hostname: str, port: int) -> None:
        """Connect to a server, and verify its certificate if TLS is on.

        Raises:
            RemoteError: the server cannot be reached, or its certificate is not trusted.
        """
        check_port(port)
        if self._socket is not None:
            raise RemoteError("this client is connected already; disconnect it first, or make another")
        deadline = self._deadline()
        try:
            connected = open_socket(hostname, port, deadline)
        except TimeoutError as error:
            raise ReplyTimeout(f"{endpoint(hostname, port)} did not answer within {self.timeout:g} s") from error
        except (OSError, ValueError) as error:  # a UnicodeError is a ValueError
            raise unreachable(error, hostname, port) from error
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._encoding = self._encodings.by_name(self.encoding)
        self._replies = ReplyDecoder(self._encodings)
        self._fault = self._early = None
        self._process = os.getpid()
        self._socket = self._secured(connected, hostname, port, deadline) if self.tls else connected

    def disconnect(self) -> None:
        """Close the connection. Disconnecting twice does nothing."""
        if self._socket is not None:
            self._socket.close()
        self._socket = self._replies = None

    def send(self, payload: Mapping[str, Any] | str | bytes) -> None:
        """Send a packet.

        A server that refuses a connection or a packet replies and closes, perhaps before it has read the packet. If it
        has left, and its reply has arrived, the packet counts as sent: `receive` returns the reply.

        Args:
            payload: the fields, or a JSON object as text.

        Raises:
            NotConnected: there is no connection.
            ServerDisconnected: the server has left.
            EncodeError, TypeError, ValueError: the payload cannot be encoded.
        """
        connected, _ = self._connection()
        data = memoryview(self._encoding.pack(parse_fields(payload)))
        if self._fault is not None:
            raise ServerDisconnected(f"the server has left: {self._fault}") from self._fault
        deadline = self._deadline()
        try:
            while data:
                connected.settimeout(remaining(deadline))
                data = data[connected.send(data) :]
        except TimeoutError as error:
            self.disconnect()
            raise ReplyTimeout(f"the server did not take the packet within {self.timeout:g} s; disconnected") from error
        except OSError as error:
            self._fault = error
            if not self._reply_has_arrived():
                raise ServerDisconnected(f"the server has left: {error}") from error
        except BaseException:  # raised again; a part of the packet may have been sent, and nothing may follow it
            self.disconnect()
            raise

    def receive(self) -> dict[str, Any]:
        """Wait for a whole reply and return its fields.

        Raises:
            NotConnected: there is no connection.
            ServerDisconnected: the server closed the connection before a whole reply had arrived.
            ReplyTimeout: no whole reply came within ``timeout``; the client has disconnected.
            InvalidReply: the received bytes are not a packet in an installed encoding.
            FailureReply: the reply is a failure, and ``raise_failures`` is set; the connection stays.
        """
        with self._receiving() as (_, replies):
            frame = self._next_frame()
            if frame is None:
                why = "" if self._fault is None else f": {self._fault}"
                raise ServerDisconnected(f"the server closed the connection {replies.state}{why}") from self._fault
            fields = replies.fields(frame)
        if self.raise_failures and (failed := failure(fields)) is not None:
            raise failed
        return fields

    def receive_raw(self) -> bytes:
        """Wait for a whole reply and return its bytes on the wire, with the header; ``b""`` if the server disconnected.

        Raises:
            NotConnected: there is no connection.
            ReplyTimeout: no whole reply came within ``timeout``; the client has disconnected.
            InvalidReply: the received bytes are not a packet.
        """
        with self._receiving() as (_, replies):
            frame = self._next_frame()
            return b"" if frame is None else replies.raw(frame)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.disconnect()

    def _connection(self) -> tuple[socket.socket, ReplyDecoder]:
        if self._socket is None or self._replies is None:
            raise NotConnected("this client is not connected; call connect(hostname, port) first")
        if self._process != os.getpid():
            raise NotConnected(
                f"this client was connected in process {self._process}, and this is process {os.getpid()}: they would "
                "take each other's replies; connect a client in each process"
            )
        return self._socket, self._replies

    @contextlib.contextmanager
    def _receiving(self) -> Iterator[tuple[socket.socket, ReplyDecoder]]:
        """Disconnect if a Ctrl+C ends the wait for a reply: the next request would get the late reply."""
        try:
            yield self._connection()
        except RemoteError:
            raise
        except BaseException:  # raised again
            self.disconnect()
            raise

    def _next_frame(self) -> Frame | None:
        """Read until a reply is complete; return None if the server closes the connection before."""
        connected, replies = self._connection()
        frame, self._early = self._early, None
        deadline = self._deadline()
        while frame is None and (frame := replies.next_frame()) is None:
            try:
                connected.settimeout(remaining(deadline))
                data = connected.recv(min(max(replies.missing, MIN_READ), MAX_READ))
            except TimeoutError as error:
                self.disconnect()
                raise ReplyTimeout(
                    f"no whole reply within {self.timeout:g} s, {replies.state}; disconnected"
                ) from error
            except OSError as error:
                self._fault = error
                return None
            if not data:
                return None
            replies.feed(data)
        return frame

    def _reply_has_arrived(self) -> bool:
        """Return True if a whole reply can be read without waiting; keep it for `receive`."""
        connected, replies = self._connection()
        connected.settimeout(0)
        with contextlib.suppress(OSError):
            while (frame := replies.next_frame()) is None and (data := connected.recv(MAX_READ)):
                replies.feed(data)
            self._early = frame
        return self._early is not None

    def _deadline(self) -> float | None:
        return None if self.timeout is None else time.monotonic() + self.timeout

    def _secured(self, connected: socket.socket, hostname: str, port: int, deadline: float | None) -> socket.socket:
        try:
            connected.settimeout(remaining(deadline))
            return self._tls.context().wrap_socket(connected, server_hostname=server_name(hostname))
        except (OSError, ValueError) as error:  # ValueError: not a name for a certificate
            connected.close()
            raise handshake_failed(error, hostname, port) from error
        except BaseException:  # raised again; the connection does not stay open
            connected.close()
            raise
