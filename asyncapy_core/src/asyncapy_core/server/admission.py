"""Taking in what was accepted: each connection is served, told why it is not, or dropped.

Knows the limits and what comes before a session, a PROXY header and a TLS handshake; nothing of what happens in one.
"""

from __future__ import annotations

import logging
import socket
from typing import TYPE_CHECKING, Final

from asyncapy_core.addresses import peer_address
from asyncapy_core.errors import ConnectionLost, ErrorCode, ProtocolError
from asyncapy_core.logs import RateLimited, escape_for_log
from asyncapy_core.net.transport import SocketTransport, Transport, Woken
from asyncapy_core.protocol.proxy_header import InvalidProxyHeader, ProxyHeader
from asyncapy_core.server.connection import Connection
from asyncapy_core.server.state import ServerState

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

    def __init__(self, state: ServerState) -> None:
        self._state = state
        self._should_log = RateLimited()

    def admit(self, sock: socket.socket, host: str) -> None:
        """Serve or refuse an accepted socket, at once or when its PROXY header and TLS handshake are done."""
        address = peer_address(host)
        peer = _PendingPeer(self._state, SocketTransport(sock), address)
        self._state.peers.call(self._admit, peer, peer=peer)

    def _admit(self, peer: _PendingPeer) -> None:
        state = self._state
        proxied = bool(state.proxies) and peer.address in state.proxies
        limit = max(MIN_PENDING, state.max_connections - len(state.connections))
        if state.draining:
            peer.drop()
        elif not proxied and state.tls is None:
            self._take_in(peer.transport, peer.address, None)
        elif state.handshakes.add(peer.transport, peer.address, limit=limit, proxied=proxied):
            state.peers.start(peer, self._shake_hands, peer, proxied)
        else:
            peer.drop()

    async def _shake_hands(self, peer: _PendingPeer, proxied: bool) -> None:  # noqa: FBT001  # called with it by position
        """Read the PROXY header of a trusted proxy, and do the TLS handshake; a peer that fails gets no reply."""
        transport: Transport = peer.transport
        certificate = None
        try:
            if proxied:
                await peer.read_proxy_header()
            if self._state.tls is not None:
                transport, certificate = await peer.shake_hands(self._state.tls)
        except (ConnectionLost, ProtocolError) as error:
            peer.drop()
            if self._should_log():
                self._state.log.info(
                    "{Client handler} No session for %s: %s", escape_for_log(peer.address), escape_for_log(error)
                )
        else:
            self._state.end_handshake(peer.transport)
            self._take_in(transport, peer.address, certificate)

    def _take_in(self, transport: Transport, address: str, certificate: PeerCertificate | None) -> None:
        """Make a connection, and serve or refuse it (docs/protocol.md, SESSION_LIMIT_REACHED and SERVER_BUSY)."""
        state = self._state
        connection = Connection(state, transport, address, certificate)
        if state.draining:
            connection.drop()
        elif len(state.connections) >= state.max_connections:
            self._refuse(connection, ErrorCode.SERVER_BUSY)
        elif not state.sessions.add(connection.session):
            self._refuse(connection, ErrorCode.SESSION_LIMIT_REACHED)
        else:
            state.connections.add(connection)
            state.peers.start(connection, connection.run)

    def _refuse(self, connection: Connection, code: ErrorCode) -> None:
        state = self._state
        if len(state.refused) >= MAX_REFUSED:
            connection.drop()
            return
        state.refused.add(connection)
        state.peers.start(connection, connection.refuse, code)


class _PendingPeer:
    """A peer without a session: a PROXY header and a TLS handshake may still come.

    Args:
        state: the server.
        transport: its connection.
        address: its address, until a PROXY header names another.
    """

    __slots__ = ("_state", "address", "transport")

    def __init__(self, state: ServerState, transport: SocketTransport, address: str) -> None:
        self._state = state
        self.transport = transport
        self.address = address

    @property
    def log(self) -> logging.LoggerAdapter[logging.Logger]:
        """The server's log; there is no session yet."""
        return logging.LoggerAdapter(self._state.log)

    async def read_proxy_header(self) -> None:
        """Read a PROXY header and nothing behind it, and take the address that it names.

        Raises:
            ConnectionLost: the proxy took too long, or left.
            InvalidProxyHeader: it sent something else.
        """
        self._state.proxying.start(self.transport)
        header = ProxyHeader()
        while header.missing:
            try:
                data = await self.transport.receive(header.missing)
            except Woken:
                continue
            if not data:
                raise InvalidProxyHeader("the proxy left before the end of its PROXY header")
            header.feed(data)
        self._state.proxying.stop(self.transport)
        if header.address is not None:
            self.address = peer_address(header.address)

    async def shake_hands(self, context: ssl.SSLContext) -> tuple[Transport, PeerCertificate | None]:
        """Do the TLS handshake; return the encrypted transport, and the certificate of the peer.

        Raises:
            ConnectionLost: it failed, or the certificate cannot be used.
        """
        from asyncapy_core.net.tls import TlsTransport  # noqa: PLC0415  # only where TLS is on

        self._state.handshaking.start(self.transport)
        encrypted = TlsTransport(self.transport, context)
        await encrypted.handshake()
        self._state.handshaking.stop(self.transport)
        return encrypted, encrypted.peer

    def drop(self) -> None:
        """Close at once, and forget; a second time does nothing."""
        self.transport.abort()
        self._state.proxying.stop(self.transport)
        self._state.handshaking.stop(self.transport)
        self._state.end_handshake(self.transport)
