"""`Client` and `Session`: a connection, as handlers and filters see it.

Does no I/O: a client sends and closes through its `Stream`, which the server implements.
"""

from __future__ import annotations

import uuid
import weakref
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, nullcontext
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Final, Protocol

from asyncapy_core.addresses import network_of
from asyncapy_core.errors import ClientDisconnected
from asyncapy_core.gone import Gone
from asyncapy_core.logs import SessionLog
from asyncapy_core.protocol.packet import Packet, SharedPacket
from asyncapy_core.protocol.wire import PROTOCOL_VERSION
from asyncapy_core.state import State

if TYPE_CHECKING:
    from asyncapy_core.interfaces import ServerInterface


class Stream(Protocol):
    """The connection of a client, as `Client` uses it."""

    @property
    def log(self) -> SessionLog: ...

    def post(self, packet: Packet) -> Awaitable[None] | None: ...

    def post_now(self, packet: Packet | SharedPacket) -> None: ...

    async def post_shared(self, packet: SharedPacket) -> None: ...

    async def post_last(self, packet: Packet) -> None: ...

    async def answer(self, result: object, packet: Packet) -> None: ...

    def answering(self) -> AbstractAsyncContextManager[object]: ...

    async def close(self) -> None: ...

    def sessions(self) -> list[Session]: ...


_NO_NAMES: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType({})


class Client:
    """The peer of one session. The server creates it.

    Args:
        address: the IP address of the peer.
        server: the server that accepted the connection.
        stream: the connection.
        session: the session, set by the server.
        encoding: the name of the session's encoding; the first packet fixes it (docs/protocol.md, "A session").

    Attributes:
        version: the version of the protocol, 22 or 23, of the packet that a handler has got with this client.
        tls_peer: the subject of the peer's certificate by attribute, such as ``{"commonName": "alice"}``, if
            ``tls_client_ca`` is set and the certificate was verified; None otherwise.
        tls_names: the subject alternative names of that certificate by kind, ``DNS``, ``email`` and ``URI``, such as
            ``{"DNS": (), "email": (), "URI": ("spiffe://example.org/billing",)}``; empty without a certificate.
    """

    __slots__ = (
        "__weakref__",
        "_network",
        "address",
        "encoding",
        "server",
        "session",
        "stream",
        "tls_names",
        "tls_peer",
    )

    version: ClassVar[int] = PROTOCOL_VERSION
    session: Session
    tls_peer: Mapping[str, str] | None
    tls_names: Mapping[str, tuple[str, ...]]
    _network: str

    def __init__(
        self,
        address: str,
        server: ServerInterface,
        stream: Stream,
        session: Session | None = None,
        encoding: str = "json",
    ) -> None:
        self.address: str = address
        self.server: ServerInterface = server
        self.stream: Stream = stream
        self.encoding: str = encoding
        self.tls_peer = None
        self.tls_names = _NO_NAMES
        if session is not None:
            self.session = session

    @property
    def network(self) -> str:
        """The network that counts as one peer.

        It is an IPv4 address, the /64 of an IPv6 address, or ``unix:`` and a path.
        """
        try:
            return self._network
        except AttributeError:  # computed once, and not for connections of which no filter asks for it
            self._network = network_of(self.address)
            return self._network

    @property
    def log(self) -> SessionLog:
        """A logger whose lines carry this session's UUID."""
        return self.stream.log

    @property
    def state(self) -> State:
        """A namespace for the attributes that the application keeps on this session, such as its user."""
        return self.session.state

    @property
    def gone(self) -> Gone:
        """A flag that is true when the connection has ended, and an awaitable of its end.

        ``if client.gone: return`` in a long loop; ``await client.gone`` in a task beside the handler. A reset of the
        connection is noticed within 0.1 seconds, also while a handler runs.
        """
        return self.session.gone

    async def send(
        self,
        packet: Packet | Mapping[str, Any] | str | bytes,
        close: bool = False,  # noqa: FBT001, FBT002  # the documented signature
        *,
        last: bool = False,
    ) -> None:
        """Send a packet: in version 23 an answer to the request of this client, from whichever task.

        Args:
            packet: a `Packet`; or its fields, to be sent in the session's encoding.
            close: close the connection after the packet.
            last: this is the last answer to the request, so that it is sent as such at once. Version 22 has no mark for
                it.

        Raises:
            AlreadyAnswered: the last answer was sent before, with ``last`` or by the handler's return value.
            ClientDisconnected: the peer has closed the connection, or the server closed it before.
            EncodeError: the packet cannot be encoded; nothing was sent.
        """
        ready = packet if isinstance(packet, Packet) else Packet(packet, self.encoding, self)
        under_way = self.stream.post_last(ready) if last else self.stream.post(ready)
        if under_way is not None:
            await under_way
        if close:
            await self.stream.close()

    def answering(self) -> AbstractAsyncContextManager[object]:
        """Return a context manager that keeps the request of this client open after its handler has returned.

        Call it in the handler, and enter it in the task that goes on with the answer. The request ends with the block,
        or with the last one if there are several, each with a context manager of its own.
        Version 22 has no requests that stay open: a packet that is sent later is a push.
        """
        return self.stream.answering()

    def send_nowait(self, packet: Packet | SharedPacket | Mapping[str, Any] | str | bytes) -> None:
        """Send a packet without waiting for a slow peer.

        Args:
            packet: as for `send`.

        Raises:
            trio.WouldBlock: the peer has not taken the packets before, and ``max_output`` bytes are queued; nothing was
                sent.
            ClientDisconnected, EncodeError: as for `send`.
        """
        ready = packet if isinstance(packet, (Packet, SharedPacket)) else Packet(packet, self.encoding, self)
        self.stream.post_now(ready)

    async def close(self) -> None:
        """Close the connection after pending output. Closing twice does nothing."""
        await self.stream.close()

    def get_sessions(self) -> list[Session]:
        """Return all active sessions of this client's IP address, the oldest first."""
        return self.stream.sessions()

    def __str__(self) -> str:
        return f"Client ({self.address})"

    def __repr__(self) -> str:
        return f"<Client {self.address} session={self.session.session_id} encoding={self.encoding}>"


class Session:
    """One connection, from accept to close.

    Args:
        session_id: the UUID that its log lines carry.
        client: the client.
        date: the UNIX time of the accept, in seconds.
    """

    __slots__ = ("_client", "_ended_client", "_gone", "_memo", "_state", "date", "session_id")

    def __init__(self, session_id: uuid.UUID, client: Client, date: float) -> None:
        self.session_id: uuid.UUID = session_id
        self.date: float = date
        self._client: Client | weakref.ref[Client] = client
        self._ended_client: _EndedClient | None = None
        self._memo: dict[object, Any] | None = None
        self._state: State | None = None
        self._gone: Gone | None = None

    @property
    def state(self) -> State:
        """A namespace for the attributes that the application keeps on this session."""
        if self._state is None:
            self._state = State()
        return self._state

    @property
    def memo(self) -> dict[object, Any]:
        """A place for filters to keep an answer about this session, by a key of their own; lost when it ends."""
        if self._ended_client is not None:
            return {}
        if self._memo is None:
            self._memo = {}
        return self._memo

    @property
    def gone(self) -> Gone:
        """Whether the connection has ended; see `Client.gone`."""
        if self._gone is None:
            self._gone = Gone()
        return self._gone

    @property
    def client(self) -> Client:
        """The client of this session. After the end of the session, sending to it raises `ClientDisconnected`."""
        if isinstance(self._client, Client):
            return self._client
        client = self._client()
        if client is None:
            assert self._ended_client is not None
            client = self._ended_client.make(self)
            self._client = weakref.ref(client)
        return client

    def end(self, sessions: Callable[[], list[Session]]) -> None:
        """Separate the client from its connection, which has ended; called by the server.

        From now on the client refers to the session, and not the other way round: no reference cycle is left, so that
        the memory of the connection is freed at once.

        Args:
            sessions: returns the active sessions of the client's address.
        """
        client = self.client
        self._memo = None
        self._ended_client = _EndedClient(client, sessions)
        self._ended_client.close(client)
        self._client = weakref.ref(client)

    @property
    def id(self) -> uuid.UUID:
        """An alias of ``session_id``."""
        return self.session_id

    async def send(self, packet: Packet | SharedPacket | Mapping[str, Any] | str | bytes) -> None:
        """Send a packet to the client of this session, from any task; see `Client.send`.

        It is a push, which answers no request. A client of version 22 cannot tell it from an answer. A `SharedPacket`
        is sent in the encoding of the session.
        """
        if isinstance(packet, SharedPacket):
            await self.client.stream.post_shared(packet)
        else:
            await self.client.send(packet)

    def send_nowait(self, packet: Packet | SharedPacket | Mapping[str, Any] | str | bytes) -> None:
        """Send a packet without waiting for a slow peer; see `Client.send_nowait`."""
        if isinstance(packet, SharedPacket):
            self.client.stream.post_now(packet)
        else:
            self.client.send_nowait(packet)

    async def close(self) -> None:
        """Close the connection after pending output."""
        await self.client.close()

    def get_client(self) -> Client:
        """Return the client of this session."""
        return self.client

    def __str__(self) -> str:
        return str(self.session_id)

    def __repr__(self) -> str:
        return f"<Session {self.session_id} of {self.client.address}>"


class _ClosedStream:
    """The `Stream` of a client after the end of its connection."""

    __slots__ = ("_client", "_sessions", "log")

    def __init__(self, log: SessionLog, sessions: Callable[[], list[Session]]) -> None:
        self.log = log
        self._sessions = sessions
        self._client: Callable[[], Client | None] = lambda: None

    def belong_to(self, client: Client) -> None:
        """Set the client of this stream, without a reference cycle."""
        self._client = weakref.ref(client)

    def post(self, packet: Packet) -> None:
        raise ClientDisconnected("the connection to this client was closed before", self._client())

    def post_now(self, packet: Packet | SharedPacket) -> None:
        raise ClientDisconnected("the connection to this client was closed before", self._client())

    async def post_shared(self, packet: SharedPacket) -> None:
        self.post_now(packet)

    async def post_last(self, packet: Packet) -> None:
        self.post(packet)

    async def answer(self, result: object, packet: Packet) -> None:
        raise ClientDisconnected("the connection to this client was closed before", self._client())

    def answering(self) -> AbstractAsyncContextManager[object]:
        return nullcontext()

    async def close(self) -> None:
        """Do nothing: the connection is closed."""

    def sessions(self) -> list[Session]:
        return self._sessions()


class _EndedClient:
    """The attributes of the client of an ended session, to make that client again."""

    __slots__ = ("_address", "_encoding", "_log", "_server", "_sessions", "_tls_names", "_tls_peer")

    def __init__(self, client: Client, sessions: Callable[[], list[Session]]) -> None:
        self._address, self._server, self._log, self._sessions = client.address, client.server, client.log, sessions
        self._encoding, self._tls_peer, self._tls_names = client.encoding, client.tls_peer, client.tls_names

    def close(self, client: Client) -> None:
        """Replace the connection of a client by a closed one."""
        client.stream = stream = _ClosedStream(self._log, self._sessions)
        stream.belong_to(client)
        client.gone.set()

    def make(self, session: Session) -> Client:
        stream = _ClosedStream(self._log, self._sessions)
        client = Client(self._address, self._server, stream, session, self._encoding)
        client.tls_peer, client.tls_names = self._tls_peer, self._tls_names
        self.close(client)
        return client
