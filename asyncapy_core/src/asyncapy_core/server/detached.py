"""`Detached`: a client without a connection, to check filters and call handlers in tests and tools."""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager, nullcontext
from typing import TYPE_CHECKING, Any

from asyncapy_core.errors import ClientDisconnected
from asyncapy_core.logs import SessionLog
from asyncapy_core.protocol.packet import Packet, SharedPacket
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

    Attributes:
        client: the client, to pass to handlers and filters.
        sent: the packets that were sent to the client, in their order.
        closed: whether the client was closed.
    """

    def __init__(
        self,
        address: str = "127.0.0.1",
        *,
        server: ServerInterface | None = None,
        encoding: str = "json",
        tls_peer: Mapping[str, str] | None = None,
        tls_names: Mapping[str, tuple[str, ...]] | None = None,
    ) -> None:
        self.sent: list[Packet] = []
        self.closed: bool = False
        self.client: Client = Client(address, server, self, encoding=encoding)  # type: ignore[arg-type]  # see above
        self.client.tls_peer = tls_peer
        if tls_names is not None:
            self.client.tls_names = tls_names
        self.client.session = Session(uuid.uuid4(), self.client, time.time())
        logger = logging.getLogger("asyncapy.detached") if server is None else server.log
        self.log: SessionLog = SessionLog(logger, self.client.session.session_id, address)

    def packet(self, fields: Mapping[str, Any] | str | bytes) -> Packet:
        """Return a packet as the server creates it from the payload of this client."""
        return Packet(fields, self.client.encoding, self.client)

    def post(self, packet: Packet) -> None:
        """Record a packet; `Client.send` calls this."""
        if self.closed:
            raise ClientDisconnected("the connection was closed before", self.client)
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

    def answering(self) -> AbstractAsyncContextManager[object]:
        """Return a context manager that does nothing; `Client.answering` calls this."""
        return nullcontext()

    async def answer(self, result: object, packet: Packet) -> None:
        """Record the return value of a handler as a packet."""
        await self.client.send(as_answer(result, packet))

    async def close(self) -> None:
        """Record the close; `Client.close` calls this."""
        self.closed = True

    def sessions(self) -> list[Session]:
        """Return the session, unless it was closed; `Client.get_sessions` calls this."""
        return [] if self.closed else [self.client.session]
