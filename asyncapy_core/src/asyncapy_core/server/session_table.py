"""`SessionTable`: the active sessions of a server, and the limit on those of one peer."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

from asyncapy_core.addresses import is_unix
from asyncapy_core.server.by_network import ByNetwork

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
        self._in_network: ByNetwork[uuid.UUID] = ByNetwork()

    def room(self, address: str) -> int | None:
        """Return how many sessions the network of an address may still have; None for no limit.

        Peers on a Unix domain socket have no address of their own, and no limit.
        """
        if not self.limit or is_unix(address):
            return None
        return self.limit - self._in_network.count(address)

    def add(self, session: Session) -> bool:
        """Add a session; return False, without effect, if its network has reached the limit."""
        address = session.client.address
        if self.room(address) == 0:
            return False
        self._in_network.add(session.session_id, address)
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
        self._in_network.discard(session.session_id)

    def of(self, address: str) -> list[Session]:
        """Return the sessions of an address, the oldest first."""
        return list(self._by_address.get(address, {}).values())

    def all(self) -> list[Session]:
        """Return all sessions."""
        return [session for sessions in self._by_address.values() for session in sessions.values()]

    def __len__(self) -> int:
        return len(self._in_network)
