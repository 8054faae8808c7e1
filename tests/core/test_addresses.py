"""The normal form of addresses, and the networks that count as one peer."""

from __future__ import annotations

from typing import Any

import pytest

from asyncapy_core.addresses import bound_address, endpoint, is_exposed, is_unix, network_of, peer_address


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:DB8:0::1", "2001:db8::1"),
        ("fe80::1%eth0", "fe80::1"),
        ("unix:/run/a:b", "unix:/run/a:b"),
    ],
)
def test_an_address_has_one_form(host: str, address: str) -> None:
    assert peer_address(host) == address


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("2001:db8::1:2:3:4", "2001:db8::/64"),
        ("2001:db8:0:1::5", "2001:db8:0:1::/64"),
        ("unix:/run/a:b", "unix:/run/a:b"),
    ],
)
def test_a_host_with_many_addresses_is_one_peer(address: str, network: str) -> None:
    assert network_of(address) == network


def test_an_endpoint_is_written_as_one_reads_it() -> None:
    assert (endpoint("localhost", 80), endpoint("::1", 80)) == ("localhost:80", "[::1]:80")


@pytest.mark.parametrize(
    ("name", "shown", "exposed"),
    [
        (("127.0.0.1", 80), "127.0.0.1:80", False),
        (("127.1.2.3", 80), "127.1.2.3:80", False),
        (("0.0.0.0", 80), "0.0.0.0:80", True),
        (("::1", 80, 0, 0), "[::1]:80", False),
        (("fe80::1%eth0", 80, 0, 2), "[fe80::1%eth0]:80", True),
        ("/run/a.sock", "unix:/run/a.sock", False),
    ],
)
def test_what_a_socket_is_bound_to_is_shown_and_judged(name: Any, shown: str, exposed: bool) -> None:
    assert bound_address(name) == shown
    assert is_exposed(name) == exposed
    assert is_unix(shown) == isinstance(name, str)
