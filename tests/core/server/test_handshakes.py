"""The limits on peers without a session: in total, and by network."""

from __future__ import annotations

import socket

import pytest

from asyncapy_core.net.transport import SocketTransport
from asyncapy_core.server.handshakes import MAX_PER_NETWORK, HandshakeTable


class NotingTransport(SocketTransport):
    """A transport that notes whether it was aborted."""

    def __init__(self) -> None:
        super().__init__(socket.socket())
        self.aborted = False
        self._socket.close()

    def abort(self) -> None:
        self.aborted = True


def add(table: HandshakeTable, address: str, *, limit: int = 1000, proxied: bool = False) -> NotingTransport:
    transport = NotingTransport()
    table.add(transport, address, limit=limit, proxied=proxied)
    return transport


def test_the_oldest_makes_room() -> None:
    table = HandshakeTable()
    first, second, third = (add(table, f"192.0.2.{number}", limit=2) for number in range(3))
    assert (first.aborted, second.aborted, third.aborted, len(table)) == (True, False, False, 2)
    table.discard(first)
    table.discard(second)
    table.discard(second)
    assert len(table) == 1


@pytest.mark.parametrize(
    "addresses", [["192.0.2.1"] * (MAX_PER_NETWORK + 2), [f"2001:db8::{n:x}" for n in range(MAX_PER_NETWORK + 2)]]
)
def test_beyond_the_limit_of_a_network_its_oldest_makes_room_and_no_other(addresses: list[str]) -> None:
    table = HandshakeTable()
    others = [add(table, "192.0.2.2"), add(table, "2001:db8:1::1")]
    held = [add(table, address) for address in addresses]
    assert [each.aborted for each in held] == [True, True] + [False] * MAX_PER_NETWORK
    assert not any(each.aborted for each in others)
    assert len(table) == MAX_PER_NETWORK + 2
    table.discard(held[2])
    assert not add(table, addresses[0]).aborted
    assert not held[3].aborted


@pytest.mark.parametrize(("address", "proxied"), [("192.0.2.1", True), ("unix:/run/a", False)])
def test_proxies_and_unix_sockets_have_no_limit_but_the_total(address: str, proxied: bool) -> None:
    table = HandshakeTable()
    held = [add(table, address, proxied=proxied) for _ in range(MAX_PER_NETWORK + 2)]
    assert not any(each.aborted for each in held)
