"""`Admission`: turns accepted sockets into connections, after their PROXY header and TLS handshake, if any."""

from __future__ import annotations

import logging
import socket
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from asyncapy_core.addresses import peer_address
from asyncapy_core.errors import ConnectionLost, ProtocolError
from asyncapy_core.logs import RateLimited, escape_for_log
from asyncapy_core.net.listener import stop_accepting
from asyncapy_core.net.transport import SocketTransport, Transport, Woken
from asyncapy_core.protocol.proxy_header import InvalidProxyHeader, ProxyHeader
from asyncapy_core.server.connection import Connection
from asyncapy_core.server.state import ServerState

if TYPE_CHECKING:
    import ssl

    from asyncapy_core.net.tls import PeerCertificate

SPARE_DESCRIPTORS: Final = 64
"""Files that a server may open in addition to its connections."""


def connection_limit(wanted: int) -> int:
    """Return the largest number of connections: ``wanted``, or fewer if the limit of open files is lower."""
    if sys.platform == "win32":
        return wanted
    try:
        import resource  # noqa: PLC0415  # not on every system
    except ImportError:
        return wanted
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return wanted if files == resource.RLIM_INFINITY else max(1, min(wanted, files - SPARE_DESCRIPTORS))


class Admission:
    """Admits accepted sockets to one running server.

    Args:
        state: the state of the server.
        listeners: its listeners.
        shared: whether other processes may accept connections from them.
    """

    def __init__(self, state: ServerState, listeners: Sequence[socket.socket], *, shared: bool) -> None:
        self._state = state
        self._listeners = listeners
        self._shared = shared
        self._should_log = RateLimited()

    def close_ports(self) -> None:
        """Close the listeners at once, before clients learn that they have to leave, and connect again."""
        stop_accepting(self._listeners, self.admit, shared=self._shared)

    def admit(self, sock: socket.socket, host: str) -> None:
        """Serve or refuse an accepted socket, at once or after its PROXY header and its TLS handshake.

        Args:
            sock: the socket, which belongs to the server from now on.
            host: the address of the peer, in the form of the socket module.
        """
        peer = _Handshake(self._state, SocketTransport(sock), peer_address(host))
        self._state.peers.call(self._admit, peer, peer=peer)

    def admit_transport(self, transport: Transport, address: str) -> None:
        """Serve or refuse a session over a transport: without a PROXY header, and without TLS.

        Args:
            transport: the transport, which belongs to the server from now on.
            address: the IP address of the peer, or ``unix:`` with a path.
        """
        connection = Connection(self._state, transport, peer_address(address))
        self._state.peers.call(self._state.admit, connection, peer=connection)

    def _admit(self, peer: _Handshake) -> None:
        state = self._state
        proxied = bool(state.proxies) and peer.address in state.proxies
        if not proxied and state.tls is None:
            state.admit(Connection(state, peer.transport, peer.address))
        else:
            state.begin_handshake(peer.transport, peer.address, proxied=proxied)
            state.peers.start(peer, self._shake_hands, peer, proxied)

    async def _shake_hands(self, peer: _Handshake, proxied: bool) -> None:  # noqa: FBT001  # called with it by position
        """Read the PROXY header, do the TLS handshake, then admit the connection. A peer that fails gets no reply."""
        transport: Transport = peer.transport
        certificate: PeerCertificate | None = None
        try:
            if proxied:
                await peer.read_proxy_header()
            if self._state.tls is not None:
                transport, certificate = await peer.start_tls(self._state.tls)
        except (ConnectionLost, ProtocolError) as error:
            level = logging.DEBUG if peer.is_check else logging.INFO
            peer.drop()
            if level == logging.DEBUG or self._should_log():
                address, reason = escape_for_log(peer.address), escape_for_log(error)
                self._state.log.log(
                    level, "{Client handler} No session for %s: %s", address, reason, extra={"address": address}
                )
        else:
            self._state.admit(Connection(self._state, transport, peer.address, certificate, of_proxy=peer.of_proxy))
            self._state.end_handshake(peer.transport)  # after it, as a server that drains waits for both


class _Handshake:
    """A connection before its session, while it waits for a PROXY header or a TLS handshake.

    Args:
        state: the state of the server.
        transport: the connection.
        address: the address of the peer, or of its proxy until the PROXY header has been read.

    Attributes:
        transport, address: as given.
        of_proxy: whether the PROXY header is that of a connection of the proxy itself.
    """

    __slots__ = ("_heard", "_state", "address", "of_proxy", "transport")

    def __init__(self, state: ServerState, transport: SocketTransport, address: str) -> None:
        self._state = state
        self.transport = transport
        self.address = address
        self.of_proxy = False
        self._heard = False  # whether a byte of the current step has arrived

    @property
    def log(self) -> logging.LoggerAdapter[logging.Logger]:
        """The server's log; there is no session yet."""
        return logging.LoggerAdapter(self._state.log, {"address": self.address})

    @property
    def is_check(self) -> bool:
        """Whether the peer is the proxy itself, or has left without a byte, or one behind the PROXY header."""
        return self.of_proxy or (not self._heard and self.transport.fileno() >= 0)

    async def read_proxy_header(self) -> None:
        """Read a PROXY header and not one byte more, and set the address from it.

        Raises:
            ConnectionLost: the header did not come in time, or the proxy closed the connection.
            InvalidProxyHeader: the bytes are not a PROXY header.
        """
        self._state.proxying.start(self.transport)
        header = ProxyHeader()
        while header.missing:
            try:
                data = await self.transport.receive(header.missing)
            except Woken:
                continue
            if not data:
                raise InvalidProxyHeader("the proxy closed the connection before the end of its PROXY header")
            self._heard = True
            header.feed(data)
        self._state.proxying.stop(self.transport)
        self.of_proxy = header.local
        if header.address is not None:
            self.address = peer_address(header.address)

    async def start_tls(self, context: ssl.SSLContext) -> tuple[Transport, PeerCertificate | None]:
        """Do the TLS handshake; return the encrypted transport, and the certificate of the peer.

        Raises:
            ConnectionLost: the handshake failed, or the certificate cannot be used.
        """
        from asyncapy_core.net.tls import TlsTransport  # noqa: PLC0415  # only with TLS

        self._state.handshaking.start(self.transport)
        encrypted = TlsTransport(self.transport, context)
        try:
            await encrypted.handshake()
        finally:
            self._heard = encrypted.heard
        self._state.handshaking.stop(self.transport)
        return encrypted, encrypted.peer

    def drop(self) -> None:
        """Close at once; dropping twice does nothing."""
        self.transport.abort()
        self._state.proxying.stop(self.transport)
        self._state.handshaking.stop(self.transport)
        self._state.end_handshake(self.transport)
