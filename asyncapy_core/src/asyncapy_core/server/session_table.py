"""`SessionTable`: the active sessions of a server, and the limit on those of one peer."""

from __future__ import annotations

import uuid
from collections import Counter
from typing import TYPE_CHECKING

from asyncapy_core.addresses import is_unix, network_of

if TYPE_CHECKING:
    from asyncapy_core.session import Session


class SessionTable:
    """The active sessions by address, limited by network: an IPv4 address, or a /64 of IPv6.

    Args:
        limit: the most sessions of one network; 0 for no limit.
    """

    __slots__ = ("_by_address", "_in_network", "limit")

    def __init__(self, limit: int) -> None:
        self.limit: int = limit
        self._by_address: dict[str, dict[uuid.UUID, Session]] = {}
        self._in_network: Counter[str] = Counter()

    def add(self, session: Session) -> bool:
        """Add a session; return False, without effect, if its network has reached the limit.

        Peers on a Unix domain socket have no address of their own, and no limit.
        """
        address = session.client.address
        network = network_of(address)
        if self.limit and self._in_network[network] >= self.limit and not is_unix(address):
            return False
        self._in_network[network] += 1
        self._by_address.setdefault(address, {})[session.session_id] = session
        return True

    def discard(self, session: Session) -> None:
        """Remove a session, if it is in the table."""
        address = session.client.address
        sessions = self._by_address.get(address, {})
        if sessions.pop(session.session_id, None) is None:
            return
        if not sessions:
            del self._by_address[address]
        network = network_of(address)
        self._in_network[network] -= 1
        if not self._in_network[network]:
            del self._in_network[network]

    def of(self, address: str) -> list[Session]:
        """Return the sessions of an address, the oldest first."""
        return list(self._by_address.get(address, {}).values())

    def __len__(self) -> int:
        return sum(map(len, self._by_address.values()))
