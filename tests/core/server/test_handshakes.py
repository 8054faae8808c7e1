"""The limits on peers without a session: in total, and by address."""

from __future__ import annotations

import socket

from asyncapy_core.net.transport import SocketTransport
from asyncapy_core.server.handshakes import MAX_PER_ADDRESS, HandshakeTable


class NotingTransport(SocketTransport):
    """A transport that notes whether it was aborted."""

    def __init__(self) -> None:
        super().__init__(socket.socket())
        self.aborted = False
        self._socket.close()

    def abort(self) -> None:
        self.aborted = True


def add(pending: HandshakeTable, address: str, *, limit: int = 1000, proxied: bool = False) -> NotingTransport | None:
    transport = NotingTransport()
    return transport if pending.add(transport, address, limit=limit, proxied=proxied) else None


def test_the_one_that_is_pending_longest_makes_room() -> None:
    pending = HandshakeTable()
    first, second, third = (add(pending, f"192.0.2.{number}", limit=2) for number in range(3))
    assert first is not None
    assert second is not None
    assert third is not None
    assert (first.aborted, second.aborted, third.aborted, len(pending)) == (True, False, False, 2)
    pending.discard(first)
    pending.discard(second)
    pending.discard(second)
    assert len(pending) == 1


def test_one_address_has_only_so_many_places_unless_it_is_a_proxy_or_has_none() -> None:
    pending = HandshakeTable()
    held = [add(pending, "192.0.2.1") for _ in range(MAX_PER_ADDRESS)]
    assert None not in held
    assert add(pending, "192.0.2.1") is None
    assert add(pending, "192.0.2.2") is not None
    assert add(pending, "192.0.2.1", proxied=True) is not None
    assert all(add(pending, "unix:/run/a") for _ in range(MAX_PER_ADDRESS + 1))
    for transport in held[:2]:
        assert transport is not None
        pending.discard(transport)
    assert add(pending, "192.0.2.1") is not None
    assert add(pending, "192.0.2.1") is None


def test_all_are_aborted_at_once() -> None:
    pending = HandshakeTable()
    held = [add(pending, f"192.0.2.{number}") for number in range(3)]
    pending.abort_all()
    assert all(transport is not None and transport.aborted for transport in held)
    assert len(pending) == 3, "the task that waits on a transport removes it"
