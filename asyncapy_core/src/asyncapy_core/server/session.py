"""What a handler is given of a connection: `Client` and `Session`.

Knows no server: a client sends and closes through the connection it was made with.
"""

from __future__ import annotations

import uuid
from collections.abc import Awaitable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, Protocol

from asyncapy_core.logs import SessionLog
from asyncapy_core.protocol.packet import Packet

if TYPE_CHECKING:
    from asyncapy_core.server.server import Server


class Stream(Protocol):
    """What a client needs of its connection."""

    @property
    def log(self) -> SessionLog: ...

    def post(self, packet: Packet) -> Awaitable[None] | None: ...

    async def close(self) -> None: ...

    def sessions(self) -> list[Session]: ...


_NO_NAMES: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType({})


class Client:
    """The peer of one session, as handlers see it. Servers make it.

    Args:
        address: the IP address of the peer.
        server: the server that it is connected to.
        stream: its connection.
        session: its session, set by the server.
        encoding: the name of the session's encoding, fixed by its first packet (docs/protocol.md, "A session").

    Attributes:
        tls_peer: the subject of the peer's certificate by attribute, such as ``{"commonName": "alice"}``, where
            ``tls_client_ca`` is set and it was verified; None otherwise.
        tls_names: the subject alternative names of that certificate by kind, ``DNS``, ``email`` and ``URI``, such as
            ``{"DNS": (), "email": (), "URI": ("spiffe://example.org/billing",)}``; empty without a certificate.
    """

    __slots__ = ("address", "encoding", "server", "session", "stream", "tls_names", "tls_peer")

    session: Session
    tls_peer: Mapping[str, str] | None
    tls_names: Mapping[str, tuple[str, ...]]

    def __init__(
        self, address: str, server: Server, stream: Stream, session: Session | None = None, encoding: str = "json"
    ) -> None:
        self.address = address
        self.server = server
        self.stream = stream
        self.encoding = encoding
        self.tls_peer = None
        self.tls_names = _NO_NAMES
        if session is not None:
            self.session = session

    @property
    def log(self) -> SessionLog:
        """A logger whose lines carry this session's UUID."""
        return self.stream.log

    async def send(self, packet: Packet | Mapping[str, Any] | str | bytes, close: bool = False) -> None:  # noqa: FBT001, FBT002  # the documented signature
        """Send a packet.

        Args:
            packet: a `Packet`; or its fields, which go out in the session's encoding.
            close: close the connection behind it.

        Raises:
            ClientDisconnected: the peer has left, or the connection was closed before.
            EncodeError: the packet cannot be carried; nothing of it was sent.
        """
        under_way = self.stream.post(packet if isinstance(packet, Packet) else Packet(packet, self.encoding, self))
        if under_way is not None:
            await under_way
        if close:
            await self.stream.close()

    async def close(self) -> None:
        """Close the connection behind what was sent; a second time does nothing."""
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
        session_id: its UUID, which is on each of its log lines.
        client: its client.
        date: the UNIX time at which it began, in seconds.
    """

    __slots__ = ("client", "date", "session_id")

    def __init__(self, session_id: uuid.UUID, client: Client, date: float) -> None:
        self.session_id = session_id
        self.client = client
        self.date = date

    @property
    def id(self) -> uuid.UUID:
        """The same as ``session_id``."""
        return self.session_id

    async def close(self) -> None:
        """Close the client's connection behind what was sent to it."""
        await self.client.close()

    def get_client(self) -> Client:
        """Return the client of this session."""
        return self.client

    def __str__(self) -> str:
        return str(self.session_id)

    def __repr__(self) -> str:
        return f"<Session {self.session_id} of {self.client.address}>"
