"""`HandshakeTable`: connections without a session yet, which wait for a PROXY header or a TLS handshake.

The table is bounded, so that peers that never finish keep no other peer out, not even one behind the same address.
"""

from __future__ import annotations

from typing import Final

from asyncapy_core.addresses import is_unix
from asyncapy_core.net.transport import SocketTransport
from asyncapy_core.server.by_network import ByNetwork

MAX_PER_NETWORK: Final = 32
"""The most handshakes of one network; proxies have no such limit."""


class HandshakeTable:
    """The handshakes of one server, the oldest first."""

    __slots__ = ("_transports",)

    def __init__(self) -> None:
        self._transports: ByNetwork[SocketTransport] = ByNetwork()

    def add(self, transport: SocketTransport, address: str, *, limit: int, proxied: bool) -> None:
        """Add a connection. If its network has too many handshakes, its oldest is aborted; if all have, the oldest is.

        Args:
            transport: the connection.
            address: the address of the peer.
            limit: the most handshakes at a time.
            proxied: whether the peer is a trusted proxy.
        """
        oldest = None
        if not proxied and not is_unix(address) and self._transports.count(address) >= MAX_PER_NETWORK:
            oldest = self._transports.oldest_of(address)
        elif len(self._transports) >= limit:
            oldest = self._transports.oldest()
        if oldest is not None:
            self.discard(oldest)
            oldest.abort()
        self._transports.add(transport, address)

    def discard(self, transport: SocketTransport) -> None:
        """Remove a connection, if it is in the table."""
        self._transports.discard(transport)

    def __len__(self) -> int:
        return len(self._transports)
