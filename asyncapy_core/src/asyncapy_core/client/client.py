"""`Client`: the synchronous client. `BlockingConnection` and `BlockingExchange` do its I/O."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Literal, Self, TypeVar

from asyncapy_core import defaults
from asyncapy_core.addresses import endpoint
from asyncapy_core.client.blocking import BlockingConnection
from asyncapy_core.client.blocking_numbered import MOST_PARTS, BlockingExchange
from asyncapy_core.client.calls import Call, MaybeNone, PartsCall
from asyncapy_core.client.connecting import (
    TlsOptions,
    check_hostname,
    check_port,
    check_timeout,
    client_encodings,
    within,
)
from asyncapy_core.client.failures import failure
from asyncapy_core.client.replies import ReplyDecoder
from asyncapy_core.client.sockets import connect
from asyncapy_core.client.typed_calls import BlockingTypedCalls
from asyncapy_core.errors import NotConnected, RemoteError, ReplyTimeout, ServerDisconnected, VersionTooOld
from asyncapy_core.protocol.frames import Frame
from asyncapy_core.protocol.kinds import Kind
from asyncapy_core.protocol.packet import parse_fields
from asyncapy_core.protocol.wire import NUMBERED_VERSION, PROTOCOL_VERSION, ByteOrder

if TYPE_CHECKING:
    import ssl

    from asyncapy_core.plugins.manager import PluginManager

T = TypeVar("T")

MAX_CONNECTIONS: Final = 4
"""How many connections a request is sent on at most, if the server leaves each of them before it begins with it."""


class Client(BlockingTypedCalls):
    """A client for one thread: `connect`, then `send` and `receive` any number of packets, then `disconnect`.

    As a context manager, it disconnects at the end. Replies are matched by their order alone (docs/protocol.md, "A
    session"). So the client disconnects if a reply does not come in time: a late reply would be taken for the next.
    For the same reason, a client belongs to one thread at a time, and to the process that connected it.

    If the server has closed an idle connection, on which each packet has its reply, `send` connects again. If it has
    closed it with ERR_TIMED_OUT before it had read the packet, `receive` connects and sends the packet again, once.

    With ``version=23``, answers are matched by numbers. `request` takes the place of `send` and `receive`, and a late
    answer costs nothing else.

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
        version: the version of the protocol, 22 or 23.

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
        version: Literal[22, 23] = 22,
    ) -> None:
        if isinstance(version, bool) or version not in (PROTOCOL_VERSION, NUMBERED_VERSION):
            raise ValueError(f"version is {version!r}; it must be {PROTOCOL_VERSION} or {NUMBERED_VERSION}")
        self._version = version
        self._tls = TlsOptions(tls, ssl_context, ca_file)
        self.timeout = timeout
        self._encodings = client_encodings(plugins, header_size, byteorder, max_packet)
        self._encoding = self._encodings.by_name(encoding)
        self._socket: socket.socket | None = None
        self._connection: BlockingConnection | None = None
        self._exchange: BlockingExchange | None = None
        self._left: list[BlockingExchange] = []
        self._server: tuple[str, int, bool] = ("", 0, tls)
        self.tls = tls
        self.encoding = encoding
        self.raise_failures: bool = raise_failures

    @property
    def timeout(self) -> float | None:
        """The most seconds to connect, to send a packet, or to receive a reply, as given."""
        return self._timeout

    @timeout.setter
    def timeout(self, timeout: float | None) -> None:
        check_timeout(timeout)
        self._timeout = timeout

    def connect(self, hostname: str, port: int) -> None:
        """Connect to a server, and verify its certificate if TLS is on.

        Raises:
            RemoteError: the server cannot be reached, or its certificate is not trusted.
        """
        check_hostname(hostname)
        check_port(port)
        if self._socket is not None:
            raise RemoteError("this client is connected already; disconnect it first, or make another")
        self._encoding = self._encodings.by_name(self.encoding)
        self._server = hostname, port, self.tls
        self._connect(self._deadline())

    def disconnect(self) -> None:
        """Close the connection. Disconnecting twice does nothing."""
        for exchange in self._left:
            exchange.close()
        self._left.clear()
        self._close()

    def request(self, payload: Mapping[str, Any] | str | bytes) -> dict[str, Any] | MaybeNone:
        """Send a packet, wait for its reply, and return its fields.

        If the server has closed the connection, or closes it before it has begun with the request, the request is sent
        on a new one. In version 22, this is the same as `send` and `receive`.

        Args:
            payload: the fields, or a JSON object as text.

        Returns:
            The fields of the reply; in version 23 of the last answer, or None if the handler has sent no answer.

        Raises:
            NotConnected: there is no connection, or no new one can be opened; the request was not handled.
            ServerDisconnected: the connection was lost before the reply; the server may have handled the request.
            ReplyTimeout: no whole reply came within ``timeout``. In version 22, the client has disconnected.
            InvalidReply: the server has sent bytes that are not a packet.
            FailureReply: the reply is a failure, and ``raise_failures`` is set.
            EncodeError, TypeError, ValueError: the payload cannot be encoded.
        """
        if self._version == PROTOCOL_VERSION:
            self.send(payload)
            return self.receive()
        call = Call(*self._packed(payload), _ignore)
        for _ in self._answers(call):
            pass
        if call.error is not None:
            raise call.error
        if call.answer is not None and self.raise_failures and (failed := failure(call.answer)) is not None:
            raise failed
        return call.answer

    def stream(self, payload: Mapping[str, Any] | str | bytes) -> Generator[dict[str, Any], None, None]:
        """Send a packet, and iterate over all its answers: ``for part in client.stream({…})``; version 23 only.

        The packet is sent when the loop begins. A loop that is left early cancels the request.

        Args:
            payload: the fields, or a JSON object as text.

        Returns:
            An iterator over the fields of the answers. It raises the exceptions of `request`; ``timeout`` is the most
            seconds from one answer to the next, and a failure is always a `FailureReply`.

        Raises:
            VersionTooOld: the client has ``version=22``.
            EncodeError, TypeError, ValueError: the payload cannot be encoded.
        """
        if self._version == PROTOCOL_VERSION:
            raise VersionTooOld("stream() needs version 23 of the protocol; give the client version=23")
        return self._parts(PartsCall(*self._packed(payload), _ignore, self._encodings.wire.max_packet, MOST_PARTS))

    def send(self, payload: Mapping[str, Any] | str | bytes) -> None:
        """Send a packet.

        If the server has closed the connection while it was idle, the packet is sent on a new one.

        A server that refuses a connection or a packet replies and closes, perhaps before it has read the packet. If it
        has left, and its reply has arrived, the packet counts as sent: `receive` returns the reply.

        Args:
            payload: the fields, or a JSON object as text.

        Raises:
            NotConnected: there is no connection, or no new one can be opened.
            ServerDisconnected: the server has left.
            ReplyTimeout: the server did not accept the packet, or a new connection, within ``timeout``.
            EncodeError, TypeError, ValueError: the payload cannot be encoded.
        """
        connection = self._connected()
        packet = self._encoding.pack(parse_fields(payload))
        if connection.fault is not None:
            raise ServerDisconnected(f"the server has left: {connection.fault}") from connection.fault
        deadline = self._deadline()
        try:
            if connection.ended_while_idle():
                connection = self._open(deadline)
            connection.outstanding.sending(packet)
            connection.send(packet, deadline)
        except RemoteError:
            raise
        except TimeoutError as error:
            self.disconnect()
            raise ReplyTimeout(f"the server did not take the packet {within(self.timeout)}; disconnected") from error
        except BaseException:  # raised again; a part of the packet may have been sent, and nothing may follow it
            self.disconnect()
            raise

    def receive(self) -> dict[str, Any]:
        """Wait for a whole reply and return its fields.

        Raises:
            NotConnected: there is no connection; or the server timed out the idle connection before it had read the
                packet, and no new one can be opened.
            ServerDisconnected: the server closed the connection before a whole reply had arrived.
            ReplyTimeout: no whole reply came within ``timeout``; the client has disconnected.
            InvalidReply: the received bytes are not a packet in an installed encoding.
            FailureReply: the reply is a failure, and ``raise_failures`` is set; the connection stays.
        """
        fields = self._next_reply(ReplyDecoder.fields)
        if fields is None:
            connection = self._connected()
            fault, state = connection.fault, connection.decoder.state
            why = "" if fault is None else f": {fault}"
            raise ServerDisconnected(f"the server closed the connection {state}{why}") from fault
        if self.raise_failures and (failed := failure(fields)) is not None:
            raise failed
        return fields

    def receive_raw(self) -> bytes:
        """Wait for a whole reply and return its bytes on the wire, with the header; ``b""`` if the server disconnected.

        Raises:
            NotConnected: as for `receive`.
            ReplyTimeout: no whole reply came within ``timeout``; the client has disconnected.
            InvalidReply: the received bytes are not a packet.
        """
        return self._next_reply(ReplyDecoder.raw) or b""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.disconnect()

    def _connected(self) -> BlockingConnection:
        if self._version != PROTOCOL_VERSION:
            raise RemoteError("send and receive match replies by their order, as in version 22; call request instead")
        connection = self._connection
        _check_process(connection)
        assert connection is not None
        return connection

    def _packed(self, payload: Mapping[str, Any] | str | bytes) -> tuple[bytes, int]:
        """Return a REQUEST with any number, and the wire id of its codec."""
        return self._encoding.pack_numbered(Kind.REQUEST, 1, parse_fields(payload)), self._encoding.wire_id

    def _parts(self, call: PartsCall) -> Generator[dict[str, Any], None, None]:
        for _ in self._answers(call):
            while call.parts:
                yield call.take()
        if call.error is not None:
            raise call.error

    def _answers(self, call: Call) -> Iterator[None]:
        """Send a request, and yield whenever it is ready, until it has ended; cancel it if it does not end in time."""
        exchange, deadline = self._exchange, self._deadline()
        _check_process(exchange)
        assert exchange is not None
        try:
            for _ in range(MAX_CONNECTIONS):
                if exchange.has_ended():
                    exchange = self._reconnect(deadline)
                more = exchange.ask(call, deadline)
                while more:
                    yield
                    if call.ended:
                        return
                    _check_process(exchange)
                    deadline = self._deadline()
                    more = exchange.wait(call, deadline)
            raise NotConnected(f"the server has ended {MAX_CONNECTIONS} sessions before it began with the request")
        except BaseException as error:  # raised again; the server does not handle the request for nothing
            late = isinstance(error, TimeoutError) and not isinstance(error, RemoteError)
            exchange.cancel(call, late=late)
            if late:
                raise ReplyTimeout(f"no whole reply {within(self.timeout)}; the request was cancelled") from error
            raise

    def _reconnect(self, deadline: float | None) -> BlockingExchange:
        """Connect to the server, in version 23. An earlier connection stays open for the answers to its streams."""
        self._left = [exchange for exchange in self._left if exchange.has_streams]
        if self._exchange is not None and self._exchange.has_streams:
            self._left.append(self._exchange)
            self._exchange = self._socket = None
        self._connect(deadline)
        assert self._exchange is not None
        return self._exchange

    def _open(self, deadline: float | None) -> BlockingConnection:
        """Connect to the server, after closing an earlier connection, in version 22."""
        self._connect(deadline)
        assert self._connection is not None
        return self._connection

    def _connect(self, deadline: float | None) -> None:
        """Connect to the server, after closing an earlier connection."""
        self._close()
        hostname, port, tls = self._server
        try:
            connected = connect(hostname, port, self._tls if tls else None, deadline)
        except TimeoutError as error:
            raise ReplyTimeout(f"{endpoint(hostname, port)} did not answer {within(self.timeout)}") from error
        self._socket = connected
        if self._version == PROTOCOL_VERSION:
            self._connection = BlockingConnection(connected, self._encodings)
        else:
            self._exchange = BlockingExchange(connected, self._encodings)

    def _close(self) -> None:
        """Close the current connection."""
        if self._exchange is not None:
            self._exchange.close()
        if self._socket is not None:
            self._socket.close()
        self._socket = self._connection = self._exchange = None

    def _next_reply(self, convert: Callable[[ReplyDecoder, Frame], T]) -> T | None:
        """Wait for a whole reply and convert it; return None if the server closes the connection before.

        If the reply is ERR_TIMED_OUT for packets that the server had not read, send them again, and wait for the reply.
        """
        connection = self._connected()
        deadline = self._deadline()
        try:
            frame = connection.next_frame(deadline)
            if frame is not None and (packets := connection.unread_before(frame, deadline)):
                connection = self._open(deadline)
                connection.outstanding.repeating(len(packets))
                for packet in packets:
                    connection.send(packet, deadline)
                frame = connection.next_frame(deadline)
            if frame is None:
                connection.outstanding.stop_counting()
                return None
            connection.outstanding.received()
            return convert(connection.decoder, frame)
        except RemoteError:
            raise
        except TimeoutError as error:
            self.disconnect()
            state = connection.decoder.state
            raise ReplyTimeout(f"no whole reply {within(self.timeout)}, {state}; disconnected") from error
        except BaseException:  # raised again; after a Ctrl+C, the next request would get the late reply
            self.disconnect()
            raise

    def _deadline(self) -> float | None:
        return None if self.timeout is None else time.monotonic() + self.timeout


def _check_process(connection: BlockingConnection | BlockingExchange | None) -> None:
    """Raise NotConnected if there is no connection, or if another process has connected."""
    if connection is None:
        raise NotConnected("this client is not connected; call connect(hostname, port) first")
    if connection.process != os.getpid():
        raise NotConnected(
            f"this client was connected in process {connection.process}, and this is process {os.getpid()}: they "
            "would take each other's replies; connect a client in each process"
        )


def _ignore() -> None:
    """Do nothing."""
