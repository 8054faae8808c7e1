"""Taking in what was accepted: each connection is served, told why it is not, or dropped.

Knows the limits and what comes before a session, a PROXY header and a TLS handshake; nothing of what happens in one.
"""

from __future__ import annotations

import logging
import socket
from typing import TYPE_CHECKING, Final

from asyncapy_core.addresses import peer_address
from asyncapy_core.errors import ConnectionLost, ErrorCode, ProtocolError
from asyncapy_core.logs import RateLimited, shown
from asyncapy_core.net.transport import SocketTransport, Transport, Woken
from asyncapy_core.protocol.proxy_header import InvalidProxyHeader, ProxyHeader
from asyncapy_core.server.connection import Connection
from asyncapy_core.server.state import Service

if TYPE_CHECKING:
    import ssl

    from asyncapy_core.net.tls import PeerCertificate

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
        self._should_log = RateLimited()

    def admit(self, sock: socket.socket, host: str) -> None:
        """Serve or refuse an accepted socket, at once or when its PROXY header and TLS handshake are done."""
        address = peer_address(host)
        newcomer = _Newcomer(self._service, SocketTransport(sock), address)
        self._service.peers.call(self._admit, newcomer, peer=newcomer)

    def _admit(self, newcomer: _Newcomer) -> None:
        service = self._service
        proxied = bool(service.proxies) and newcomer.address in service.proxies
        limit = max(MIN_PENDING, service.max_connections - len(service.connections))
        if service.draining:
            newcomer.drop()
        elif not proxied and service.tls is None:
            self._take_in(newcomer.transport, newcomer.address, None)
        elif service.pending.add(newcomer.transport, newcomer.address, most=limit, proxied=proxied):
            service.peers.start(newcomer, self._introduce, newcomer, proxied)
        else:
            newcomer.drop()

    async def _introduce(self, newcomer: _Newcomer, proxied: bool) -> None:  # noqa: FBT001  # called with it by position
        """Read the PROXY header of a trusted proxy, and do the TLS handshake; a peer that fails gets no reply."""
        transport: Transport = newcomer.transport
        certificate = None
        try:
            if proxied:
                await newcomer.read_proxy_header()
            if self._service.tls is not None:
                transport, certificate = await newcomer.shake_hands(self._service.tls)
        except (ConnectionLost, ProtocolError) as error:
            newcomer.drop()
            if self._should_log():
                self._service.log.info("{Client handler} No session for %s: %s", shown(newcomer.address), shown(error))
        else:
            self._service.arrived(newcomer.transport)
            self._take_in(transport, newcomer.address, certificate)

    def _take_in(self, transport: Transport, address: str, certificate: PeerCertificate | None) -> None:
        """Make a connection, and serve or refuse it (docs/protocol.md, SESSION_LIMIT_REACHED and SERVER_BUSY)."""
        service = self._service
        connection = Connection(service, transport, address, certificate)
        if service.draining:
            connection.drop()
        elif len(service.connections) >= service.max_connections:
            self._refuse(connection, ErrorCode.SERVER_BUSY)
        elif not service.sessions.add(connection.session):
            self._refuse(connection, ErrorCode.SESSION_LIMIT_REACHED)
        else:
            service.connections.add(connection)
            service.peers.start(connection, connection.run)

    def _refuse(self, connection: Connection, code: ErrorCode) -> None:
        service = self._service
        if len(service.refused) >= MAX_REFUSED:
            connection.drop()
            return
        service.refused.add(connection)
        service.peers.start(connection, connection.refuse, code)


class _Newcomer:
    """A peer without a session: a PROXY header and a TLS handshake may still come.

    Args:
        service: the server.
        transport: its connection.
        address: its address, until a PROXY header names another.
    """

    __slots__ = ("_service", "address", "transport")

    def __init__(self, service: Service, transport: SocketTransport, address: str) -> None:
        self._service = service
        self.transport = transport
        self.address = address

    @property
    def log(self) -> logging.LoggerAdapter[logging.Logger]:
        """The server's log; there is no session yet."""
        return logging.LoggerAdapter(self._service.log)

    async def read_proxy_header(self) -> None:
        """Read a PROXY header and nothing behind it, and take the address that it names.

        Raises:
            ConnectionLost: the proxy took too long, or left.
            InvalidProxyHeader: it sent something else.
        """
        self._service.introducing.start(self.transport)
        header = ProxyHeader()
        while header.missing:
            try:
                data = await self.transport.receive(header.missing)
            except Woken:
                continue
            if not data:
                raise InvalidProxyHeader("the proxy left before the end of its PROXY header")
            header.feed(data)
        self._service.introducing.stop(self.transport)
        if header.address is not None:
            self.address = peer_address(header.address)

    async def shake_hands(self, context: ssl.SSLContext) -> tuple[Transport, PeerCertificate | None]:
        """Do the TLS handshake; return the encrypted transport, and the certificate of the peer.

        Raises:
            ConnectionLost: it failed, or the certificate cannot be used.
        """
        from asyncapy_core.net.tls import TlsTransport  # noqa: PLC0415  # only where TLS is on

        self._service.handshaking.start(self.transport)
        encrypted = TlsTransport(self.transport, context)
        await encrypted.handshake()
        self._service.handshaking.stop(self.transport)
        return encrypted, encrypted.peer

    def drop(self) -> None:
        """Close at once, and forget; a second time does nothing."""
        self.transport.abort()
        self._service.introducing.stop(self.transport)
        self._service.handshaking.stop(self.transport)
        self._service.arrived(self.transport)
