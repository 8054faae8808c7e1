"""The table of a server's sessions, and the limit on those of one peer.

Knows nothing of what is said in them.
"""

from __future__ import annotations

import uuid
from collections import Counter
from typing import TYPE_CHECKING

from asyncapy_core.addresses import is_unix, network_of

if TYPE_CHECKING:
    from asyncapy_core.session import Session


class SessionTable:
    """The active sessions of one server, by address and, for the limit, by network: one address, or a /64 of IPv6."""

    __slots__ = ("_by_address", "_in_network", "limit")

    def __init__(self, limit: int) -> None:
        self.limit: int = limit
        self._by_address: dict[str, dict[uuid.UUID, Session]] = {}
        self._in_network: Counter[str] = Counter()

    def add(self, session: Session) -> bool:
        """Enter a session, unless its network has as many as the limit allows; say whether it was entered.

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
        """Take a session out; one that is not there may be taken out again."""
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
