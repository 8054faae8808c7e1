"""`Detached`: a client without a connection, to check filters and call handlers in tests and tools."""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager, nullcontext
from typing import TYPE_CHECKING, Any, Literal

from asyncapy_core.errors import AlreadyAnswered, ClientDisconnected
from asyncapy_core.logs import SessionLog
from asyncapy_core.protocol.packet import Packet, SharedPacket
from asyncapy_core.protocol.wire import NUMBERED_VERSION
from asyncapy_core.server.handling import as_answer
from asyncapy_core.session import Client, Session

if TYPE_CHECKING:
    from asyncapy_core.interfaces import ServerInterface


class Detached:
    """Takes the place of a connection, and records the packets sent over it.

    Args:
        address: the IP address of the client.
        server: the client's ``server``, for handlers that use it.
        encoding: the encoding of the session.
        tls_peer: the client's ``tls_peer``: the subject of its certificate.
        tls_names: the client's ``tls_names``: the subject alternative names of its certificate, by kind.
        version: the version of the protocol, 22 or 23. In version 23, the client is that of one request, which takes no
            answer after the last one, and packets for its session are events.

    Attributes:
        client: the client, to pass to handlers and filters.
        sent: the packets that were sent to the client, in their order.
        events: in version 23, the packets that were sent to the session, in their order.
    """

    def __init__(
        self,
        address: str = "127.0.0.1",
        *,
        server: ServerInterface | None = None,
        encoding: str = "json",
        tls_peer: Mapping[str, str] | None = None,
        tls_names: Mapping[str, tuple[str, ...]] | None = None,
        version: Literal[22, 23] = 22,
    ) -> None:
        self.sent: list[Packet] = []
        self.events: list[Packet] = []
        self._closed = self._answered = False
        self._pushed: Detached | None = None
        self.client: Client = Client(address, server, self, encoding=encoding)  # type: ignore[arg-type]  # see above
        self.client.tls_peer = tls_peer
        if tls_names is not None:
            self.client.tls_names = tls_names
        if version == NUMBERED_VERSION:
            self._pushed = Detached(address, server=server, encoding=encoding, tls_peer=tls_peer, tls_names=tls_names)
            self.events = self._pushed.sent
            self.client.session = self._pushed.client.session
        else:
            self.client.session = Session(uuid.uuid4(), self.client, time.time())
        logger = logging.getLogger("asyncapy.detached") if server is None else server.log
        self.log: SessionLog = SessionLog(logger, self.client.session.session_id, address)

    @property
    def closed(self) -> bool:
        """Whether the client was closed."""
        return self._closed if self._pushed is None else self._pushed.closed

    def packet(self, fields: Mapping[str, Any] | str | bytes) -> Packet:
        """Return a packet as the server creates it from the payload of this client."""
        return Packet(fields, self.client.encoding, self.client)

    def post(self, packet: Packet) -> None:
        """Record a packet; `Client.send` calls this."""
        if self.closed:
            raise ClientDisconnected("the connection was closed before", self.client)
        if self._answered:
            raise AlreadyAnswered("the last answer to this request was sent, with last=True; no other can follow")
        self.sent.append(packet)

    def post_now(self, packet: Packet | SharedPacket) -> None:
        """Record a packet; `Client.send_nowait` calls this."""
        self.post(self.packet(packet.fields) if isinstance(packet, SharedPacket) else packet)

    async def post_shared(self, packet: SharedPacket) -> None:
        """Record a packet; `Session.send` calls this."""
        self.post_now(packet)

    async def post_last(self, packet: Packet) -> None:
        """Record a packet; ``Client.send(..., last=True)`` calls this."""
        self.post(packet)
        self._answered = self._pushed is not None

    def answering(self) -> AbstractAsyncContextManager[object]:
        """Return a context manager that does nothing; `Client.answering` calls this."""
        return nullcontext()

    async def answer(self, result: object, packet: Packet) -> None:
        """Record the return value of a handler as a packet."""
        await self.client.send(as_answer(result, packet))

    async def close(self) -> None:
        """Record the close; `Client.close` calls this."""
        if self._pushed is None:
            self._closed = True
        else:
            await self._pushed.close()

    def sessions(self) -> list[Session]:
        """Return the session, unless it was closed; `Client.get_sessions` calls this."""
        return [] if self.closed else [self.client.session]
