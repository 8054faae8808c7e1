from __future__ import annotations

import ipaddress
from collections.abc import Callable
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncapy.filters import Filter, Filters
from asyncapy_core import Client, Packet
from asyncapy_core.addresses import peer_address
from asyncapy_filters import Ip

PACKET = Packet({})

WRONG: list[Any] = ["", "bogus", "256.0.0.1", "127.1", "1.2.3", "1.2.3.4.5", "10.0.0.1/8", "10.0.0.0/33", "::g", "*"]
WRONG += [" 127.0.0.1", "127.0.0.1:80", "[::1]", "localhost", "01.02.03.04", "fe80::1%eth0"]


def client(address: str) -> Client:
    return Client(address, cast("Any", None), cast("Any", None))


def passes(filter: Ip, address: str) -> bool:
    return filter.check(client(address), PACKET)


@pytest.mark.parametrize(
    ("ips", "inside", "outside"),
    [
        ("127.0.0.1", ["127.0.0.1"], ["127.0.0.2", "::1", "127.0.0.10"]),
        (["192.0.2.1", "192.0.2.9"], ["192.0.2.1", "192.0.2.9"], ["192.0.2.2"]),
        ("10.0.0.0/8", ["10.0.0.0", "10.1.2.3", "10.255.255.255"], ["11.0.0.0", "9.255.255.255", "::a00:1"]),
        ("192.0.2.7/32", ["192.0.2.7"], ["192.0.2.8"]),
        ("192.0.2.6/31", ["192.0.2.6", "192.0.2.7"], ["192.0.2.5", "192.0.2.8"]),
        ("0.0.0.0/0", ["1.2.3.4", "255.255.255.255"], ["::1"]),
        ("::1", ["::1"], ["::2", "127.0.0.1"]),
        ("2001:DB8:0:0::0001", ["2001:db8::1"], ["2001:db8::2"]),
        ("2001:db8::/32", ["2001:db8::1", "2001:db8:ffff::"], ["2001:db9::1", "32.1.13.184"]),
        ("::/0", ["::1", "2001:db8::1"], ["1.2.3.4"]),
        ("::ffff:192.0.2.1", ["192.0.2.1"], ["192.0.2.2"]),
        ("::ffff:10.0.0.0/104", ["10.9.9.9"], ["11.0.0.0"]),
        ("::ffff:0:0/96", ["1.2.3.4"], ["::1"]),
        (["10.0.0.0/8", "2001:db8::/32", "::1"], ["10.1.1.1", "2001:db8::5", "::1"], ["11.1.1.1", "::2"]),
        ([], [], ["127.0.0.1", "::1"]),
        ("127.0.0.1", [], ["", "unix", "not an address"]),
        ("10.0.0.0/8", [], ["", "unix", "not an address", "10.0.0"]),
    ],
    ids=repr,
)
def test_the_addresses_and_networks_that_were_given_pass_and_no_others(
    ips: Any, inside: list[str], outside: list[str]
) -> None:
    filter = Ip(ips)
    assert [address for address in inside if not passes(filter, address)] == []
    assert [address for address in outside if passes(filter, address)] == []


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("::FFFF:C000:201", "192.0.2.1"),
        ("2001:DB8:0:0:0:0:0:1", "2001:db8::1"),
        ("fe80::1%eth0", "fe80::1"),
        ("::1", "::1"),
    ],
)
def test_the_address_of_a_peer_is_in_the_form_that_the_filter_looks_for(host: str, address: str) -> None:
    assert peer_address(host) == address
    assert passes(Ip(address), peer_address(host))


def test_it_is_a_documented_filter() -> None:
    filter = Filters.Ip(["127.0.0.1"])
    assert isinstance(filter, Ip)
    assert isinstance(filter, Filter)
    assert repr(filter) == "Ip(['127.0.0.1'])"


@pytest.mark.parametrize("wrong", WRONG)
def test_what_is_neither_an_address_nor_a_network_is_a_value_error(wrong: str) -> None:
    for ips in (wrong, [wrong], ["127.0.0.1", wrong]):
        with pytest.raises(ValueError, match="neither an IP address nor"):
            Ip(ips)


@pytest.mark.parametrize("wrong", [None, 5, 5.0, [5], [None], [["127.0.0.1"]], {"a": 1}, object(), ["127.0.0.1", 5]])
def test_what_is_no_text_is_a_value_error(wrong: Any) -> None:
    with pytest.raises(ValueError, match="IP address"):
        Ip(wrong)
    filter = Ip("127.0.0.1")
    with pytest.raises(ValueError, match="IP address"):
        filter.ips = wrong
    assert list(filter.ips) == ["127.0.0.1"]


def _assign(filter: Ip, value: Any) -> None:
    filter.ips = value


CHANGES: dict[str, Callable[[Ip, str], Any]] = {
    "append": lambda ips, ip: ips.ips.append(ip),
    "insert": lambda ips, ip: ips.ips.insert(0, ip),
    "extend": lambda ips, ip: ips.ips.extend(["192.0.2.50", ip]),
    "add": lambda ips, ip: ips.ips.__iadd__(["192.0.2.50", ip]),
    "item": lambda ips, ip: ips.ips.__setitem__(0, ip),
    "slice": lambda ips, ip: ips.ips.__setitem__(slice(0, 2), ["192.0.2.50", ip]),
    "assign a list": lambda ips, ip: _assign(ips, ["192.0.2.50", ip]),
    "assign one": _assign,
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize(("ip", "inside"), [("192.0.2.99", "192.0.2.99"), ("198.51.100.0/24", "198.51.100.7")])
def test_the_filter_may_be_changed_while_it_is_used(change: str, ip: str, inside: str) -> None:
    filter = Ip(["192.0.2.1", "10.0.0.0/8", "::1"])
    bound = filter.check
    assert not passes(filter, inside)
    CHANGES[change](filter, ip)
    assert bound(client(inside), PACKET)
    assert ip in filter.ips


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("wrong", ["bogus", "10.0.0.1/8", cast("Any", 5)])
def test_a_change_to_something_wrong_is_a_value_error_and_changes_nothing(change: str, wrong: Any) -> None:
    filter = Ip(["192.0.2.1", "10.0.0.0/8", "::1"])
    with pytest.raises(ValueError, match="IP address"):
        CHANGES[change](filter, wrong)
    assert list(filter.ips) == ["192.0.2.1", "10.0.0.0/8", "::1"]
    assert passes(filter, "192.0.2.1")
    assert passes(filter, "10.1.1.1")
    assert not passes(filter, "192.0.2.50")


def test_addresses_may_be_taken_away() -> None:
    filter = Ip(["192.0.2.1", "10.0.0.0/8", "::1"])
    filter.ips.remove("10.0.0.0/8")
    assert not passes(filter, "10.1.1.1")
    del filter.ips[0]
    assert not passes(filter, "192.0.2.1")
    assert passes(filter, "::1")
    assert filter.ips.pop() == "::1"
    assert not passes(filter, "::1")
    with pytest.raises(IndexError):
        del filter.ips[0]
    filter.ips = ["192.0.2.1"]
    filter.ips.clear()
    assert not passes(filter, "192.0.2.1")


def test_an_address_that_is_there_twice_stays_until_it_is_taken_away_twice() -> None:
    filter = Ip(["192.0.2.1", "192.0.2.1"])
    filter.ips.remove("192.0.2.1")
    assert passes(filter, "192.0.2.1")
    filter.ips.remove("192.0.2.1")
    assert not passes(filter, "192.0.2.1")


def test_the_addresses_are_a_list() -> None:
    filter = Ip(["192.0.2.1", "10.0.0.0/8"])
    assert len(filter.ips) == 2
    assert filter.ips[0] == "192.0.2.1"
    assert filter.ips[-1:] == ["10.0.0.0/8"]
    assert list(filter.ips) == ["192.0.2.1", "10.0.0.0/8"]
    assert repr(filter.ips) == "['192.0.2.1', '10.0.0.0/8']"
    assert "192.0.2.1" in filter.ips


def test_the_addresses_are_compared_like_a_list() -> None:
    assert Ip(["192.0.2.1", "10.0.0.0/8"]).ips == ["192.0.2.1", "10.0.0.0/8"]
    assert Ip("192.0.2.1").ips != ["192.0.2.2"]


def test_the_addresses_of_another_filter_may_be_assigned() -> None:
    filter, other = Ip("192.0.2.1"), Ip(["192.0.2.2", "10.0.0.0/8"])
    filter.ips = other.ips
    assert filter.ips == other.ips
    assert passes(filter, "10.1.2.3")
    other.ips.clear()
    assert passes(filter, "10.1.2.3")
    assert filter.ips != other.ips


def test_the_list_that_was_given_is_copied() -> None:
    ips = ["192.0.2.1"]
    filter = Ip(ips)
    ips.append("192.0.2.2")
    assert not passes(filter, "192.0.2.2")


addresses = st.ip_addresses().map(str)
networks = st.builds(
    lambda address, bits: str(ipaddress.ip_network((address, min(bits, address.max_prefixlen)), strict=False)),
    st.ip_addresses(),
    st.integers(0, 128),
)


@given(st.lists(addresses | networks, max_size=6), st.ip_addresses(), st.data())
def test_an_address_passes_exactly_when_the_ipaddress_module_has_it_in_one_of_the_networks(
    ips: list[str], address: Any, data: st.DataObject
) -> None:
    if bool(ips) and data.draw(st.booleans()):
        address = ipaddress.ip_network(data.draw(st.sampled_from(ips)))[0]
    peer = peer_address(str(address))
    expected = any(ipaddress.ip_address(peer) in _unmapped(ip) for ip in ips)
    assert passes(Ip(ips), peer) is expected


def _unmapped(ip: str) -> Any:
    network = ipaddress.ip_network(ip)
    if isinstance(network, ipaddress.IPv6Network) and network.subnet_of(ipaddress.IPv6Network("::ffff:0:0/96")):
        mapped = network.network_address.ipv4_mapped
        assert mapped is not None
        return ipaddress.ip_network((mapped, network.prefixlen - 96))
    return network
