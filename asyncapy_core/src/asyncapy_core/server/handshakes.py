"""Peers that were accepted and have no session yet: a PROXY header or a TLS handshake is waited for.

Bounded, so that those who never come to the point keep nobody else out. Knows nothing of what is waited for.
"""

from __future__ import annotations

from collections import Counter
from typing import Final

from asyncapy_core.addresses import is_unix
from asyncapy_core.net.transport import SocketTransport

MAX_EACH: Final = 32
"""How many may be from one address, so that one cannot keep the others out; proxies have no such limit."""


class HandshakeTable:
    """The pending peers of one server, the longest first."""

    __slots__ = ("_addresses", "_count")

    def __init__(self) -> None:
        self._addresses: dict[SocketTransport, str] = {}
        self._count: Counter[str] = Counter()

    def add(self, transport: SocketTransport, address: str, *, limit: int, proxied: bool) -> bool:
        """Enter a peer, in place of the one that is pending longest where there are as many as may be.

        Args:
            transport: its connection.
            address: where it is from.
            limit: how many may be pending.
            proxied: whether it is a proxy that is trusted to speak for others.

        Returns:
            Whether it was entered; not when too many from its address are pending.
        """
        if not proxied and self._count[address] >= MAX_EACH and not is_unix(address):
            return False
        if len(self._addresses) >= limit:
            longest = next(iter(self._addresses))
            self.discard(longest)
            longest.abort()
        self._addresses[transport] = address
        self._count[address] += 1
        return True

    def discard(self, transport: SocketTransport) -> None:
        """Take a peer out; one that is not there may be taken out again."""
        address = self._addresses.pop(transport, None)
        if address is not None:
            self._count[address] -= 1
            if not self._count[address]:
                del self._count[address]

    def abort_all(self) -> None:
        """Close all connections; those who wait for something on them take them out."""
        for transport in tuple(self._addresses):
            transport.abort()

    def __len__(self) -> int:
        return len(self._addresses)
