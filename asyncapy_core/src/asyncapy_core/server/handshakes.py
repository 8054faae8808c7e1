"""`HandshakeTable`: connections without a session yet, which wait for a PROXY header or a TLS handshake.

The table is bounded, so that peers that never finish keep no other peer out.
"""

from __future__ import annotations

from collections import Counter
from typing import Final

from asyncapy_core.addresses import is_unix
from asyncapy_core.net.transport import SocketTransport

MAX_PER_ADDRESS: Final = 32
"""The most handshakes of one address; proxies have no such limit."""


class HandshakeTable:
    """The handshakes of one server, the oldest first."""

    __slots__ = ("_addresses", "_count")

    def __init__(self) -> None:
        self._addresses: dict[SocketTransport, str] = {}
        self._count: Counter[str] = Counter()

    def add(self, transport: SocketTransport, address: str, *, limit: int, proxied: bool) -> bool:
        """Add a connection. If the table is full, the oldest connection is aborted.

        Args:
            transport: the connection.
            address: the address of the peer.
            limit: the most handshakes at a time.
            proxied: whether the peer is a trusted proxy.

        Returns:
            False, without effect, if the address has too many handshakes.
        """
        if not proxied and self._count[address] >= MAX_PER_ADDRESS and not is_unix(address):
            return False
        if len(self._addresses) >= limit:
            oldest = next(iter(self._addresses))
            self.discard(oldest)
            oldest.abort()
        self._addresses[transport] = address
        self._count[address] += 1
        return True

    def discard(self, transport: SocketTransport) -> None:
        """Remove a connection, if it is in the table."""
        address = self._addresses.pop(transport, None)
        if address is not None:
            self._count[address] -= 1
            if not self._count[address]:
                del self._count[address]

    def abort_all(self) -> None:
        """Abort all connections; the tasks that wait on them remove them."""
        for transport in tuple(self._addresses):
            transport.abort()

    def __len__(self) -> int:
        return len(self._addresses)
