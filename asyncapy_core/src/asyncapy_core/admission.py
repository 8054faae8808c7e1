"""Taking in what was accepted: each connection is served, told why it is not, or dropped.

Knows the limits and what comes before a session, a PROXY header and a TLS handshake; nothing of what happens in one.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping
from typing import Final

from asyncapy_core.addresses import peer_address
from asyncapy_core.connection import Connection
from asyncapy_core.errors import ConnectionLost, ErrorCode, ProtocolError
from asyncapy_core.logs import RateLimited, shown
from asyncapy_core.proxy import InvalidProxyHeader, ProxyHeader
from asyncapy_core.service import Service
from asyncapy_core.transport import SocketTransport, Transport, Woken

MAX_REFUSED: Final = 24
"""How many refused peers are told why at a time; those beyond are dropped."""

MIN_PENDING: Final = 24
"""How many peers may be pending at least, however full the server is."""

SPARE_DESCRIPTORS: Final = 64
"""Files that a server may open besides those of its connections."""


def connection_limit(wanted: int) -> int:
    """Return how many connections there may be: as many as wanted, or as the limit of open files allows."""
    try:
        import resource  # noqa: PLC0415  # there is none on Windows
    except ImportError:
        return wanted
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return wanted if files == resource.RLIM_INFINITY else max(1, min(wanted, files - SPARE_DESCRIPTORS))


class Admission:
    """The door of one running server."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._worth_a_line = RateLimited()

    def admit(self, sock: socket.socket, host: str) -> None:
        """Serve or refuse an accepted socket, at once or when it has introduced itself."""
        service = self._service
        transport = SocketTransport(sock)
        address = peer_address(host)
        proxied = bool(service.proxies) and address in service.proxies
        most = max(MIN_PENDING, service.max_connections - len(service.connections))
        if not proxied and service.tls is None:
            self._take_in(transport, address, None)
        elif service.pending.add(transport, address, most=most, proxied=proxied):
            service.spawn(self._introduce, transport, address, proxied)
        else:
            transport.abort()

    async def _introduce(self, transport: SocketTransport, address: str, proxied: bool) -> None:  # noqa: FBT001  # called by spawn
        """Read who a proxy speaks for, and shake hands; a peer that fails gets no reply."""
        service = self._service
        secured: Transport = transport
        tls_peer = None
        introduced = False
        try:
            if proxied:
                service.introducing.start(transport)
                address = await _proxied_address(transport) or address
                service.introducing.stop(transport)
            if service.tls is not None:
                from asyncapy_core.tls import TlsTransport  # noqa: PLC0415  # only where TLS is on

                service.handshaking.start(transport)
                secured = encrypted = TlsTransport(transport, service.tls)
                await encrypted.handshake()
                tls_peer = encrypted.peer
            introduced = True
        except (ConnectionLost, ProtocolError) as error:
            if self._worth_a_line():
                service.log.info("{Client handler} %s did not introduce itself: %s", shown(address), shown(error))
            return
        finally:
            if not introduced:
                transport.abort()
            service.introducing.stop(transport)
            service.handshaking.stop(transport)
            service.arrived(transport)
        self._take_in(secured, address, tls_peer)

    def _take_in(self, transport: Transport, address: str, tls_peer: Mapping[str, str] | None) -> None:
        """Make a connection, and serve or refuse it (WIRE.md, SESSION_LIMIT_REACHED and SERVER_BUSY)."""
        service = self._service
        connection = Connection(service, transport, address, tls_peer)
        if service.draining:
            connection.drop()
        elif len(service.connections) >= service.max_connections:
            self._refuse(connection, ErrorCode.SERVER_BUSY)
        elif not service.sessions.add(connection.session):
            self._refuse(connection, ErrorCode.SESSION_LIMIT_REACHED)
        else:
            service.connections.add(connection)
            service.spawn(connection.run)

    def _refuse(self, connection: Connection, code: ErrorCode) -> None:
        service = self._service
        if len(service.refused) >= MAX_REFUSED:
            connection.drop()
            return
        service.refused.add(connection)
        service.spawn(connection.refuse, code)


async def _proxied_address(transport: SocketTransport) -> str | None:
    """Read a PROXY header and nothing behind it; return whom it names.

    Raises:
        ConnectionLost: the proxy took too long, or left.
        InvalidProxyHeader: what came is no PROXY header.
    """
    header = ProxyHeader()
    while header.missing:
        try:
            data = await transport.receive(header.missing)
        except Woken:
            continue
        if not data:
            raise InvalidProxyHeader("the proxy left before it had said who its client is")
        header.feed(data)
    return None if header.address is None else peer_address(header.address)
