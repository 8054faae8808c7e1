from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncapy_core.protocol.proxy_header import LONGEST_LINE, SIGNATURE, InvalidProxyHeader, Proxies, ProxyHeader


def binary(family: int, body: bytes, *, command: int = 0x21, length: int | None = None) -> bytes:
    size = len(body) if length is None else length
    return SIGNATURE + bytes((command, family)) + size.to_bytes(2, "big") + body


TCP4 = binary(0x11, bytes([192, 0, 2, 7, 10, 0, 0, 1]) + b"\x30\x39\x01\xbb")
TCP6 = binary(0x21, ipaddress.IPv6Address("2001:db8::7").packed * 2 + b"\x30\x39\x01\xbb")
GOOD = {
    b"PROXY TCP4 192.0.2.7 10.0.0.1 12345 443\r\n": "192.0.2.7",
    b"PROXY TCP4 1.1.1.1 1.1.1.1 1 1\r\n": "1.1.1.1",
    b"PROXY TCP6 2001:db8::7 ::1 65535 0\r\n": "2001:db8::7",
    b"PROXY UNKNOWN\r\n": None,
    b"PROXY UNKNOWN ffff:f...f:ffff ffff:f...f:ffff 65535 65535\r\n": None,
    TCP4: "192.0.2.7",
    TCP6: "2001:db8::7",
    binary(0x11, TCP4[16:] + b"\x03\x00\x04abcd"): "192.0.2.7",
    binary(0x00, b"", command=0x20): None,
    binary(0x11, TCP4[16:], command=0x20): None,
    binary(0x31, bytes(216)): None,
    binary(0x12, TCP4[16:]): None,
    binary(0x00, b""): None,
}
BAD = {
    b"GET / HTTP/1.1\r\n\r\n": "does not begin with a header",
    b"PROXY TCP4 192.0.2.7 10.0.0.1 12345\r\n": "without two ports",
    b"PROXY TCP4 192.0.2.7 10.0.0.1 12345 65536\r\n": "without two ports",
    b"PROXY TCP4 192.0.2.7 10.0.0.1 12345 443 1\r\n": "without two ports",
    b"PROXY TCP4 192.0.2.7 10.0.0.1 x 443\r\n": "without two ports",
    b"PROXY TCP4 ::1 ::1 12345 443\r\n": "two addresses of its family",
    b"PROXY TCP4 300.1.1.1 10.0.0.1 1 1\r\n": "two addresses of its family",
    b"PROXY TCP4 \xff.1.1.1 10.0.0.1 1 1\r\n": "two addresses of its family",
    b"PROXY TCP5 1.1.1.1 1.1.1.1 1 1\r\n": "two addresses of its family",
    b"PROXY TCP4 1.1.1.1\r\n": "two addresses of its family",
    b"PROXY " + b"x" * 200: "more than 107 bytes",
    b"PROXY TCP4 1.1.1.1 1.1\n1.1.1 1 1\r\n": "a stray line end",
    b"PROXY TCP4 1.1.1.1 1.1\r.1.1 1 1\r\n": "a stray line end",
    binary(0x11, b"", command=0x22): "command 0x22",
    binary(0x11, b"", command=0x11): "command 0x11",
    binary(0x11, b"", length=0xFFFF): "of 65535 bytes",
    binary(0x11, TCP4[16:-1]): "too short for its addresses",
    binary(0x21, TCP4[16:]): "too short for its addresses",
}


def read(data: bytes, piece: int = 4096) -> tuple[ProxyHeader, int]:
    """Feed a header in pieces, as a connection does; return it and the number of bytes that it took."""
    header, taken = ProxyHeader(), 0
    while header.missing and taken < len(data):
        part = data[taken : taken + min(header.missing, piece)]
        header.feed(part)
        taken += len(part)
    return header, taken


@pytest.mark.parametrize("piece", [4096, 1])
@pytest.mark.parametrize(("data", "address"), GOOD.items(), ids=repr)
@pytest.mark.parametrize("behind", [b"", b"\r\n", b"\x00\x00\x00\x10\x16\x00", b"PROXY UNKNOWN\r\n"])
def test_a_header_is_read_to_its_last_byte_and_no_further(
    data: bytes, address: str | None, piece: int, behind: bytes
) -> None:
    header, taken = read(data + behind, piece)
    assert (header.address, header.missing, taken) == (address, 0, len(data))
    assert header.local == data.startswith(SIGNATURE + b"\x20")


@pytest.mark.parametrize("piece", [4096, 1])
@pytest.mark.parametrize(("data", "reason"), BAD.items(), ids=repr)
def test_what_is_no_header_is_refused(data: bytes, reason: str, piece: int) -> None:
    with pytest.raises(InvalidProxyHeader, match=reason):
        read(data, piece)


@pytest.mark.parametrize("data", GOOD, ids=repr)
def test_a_header_that_was_cut_is_not_complete(data: bytes) -> None:
    for cut in range(len(data)):
        header, _ = read(data[:cut])
        assert 0 < header.missing <= len(data) - cut
        assert header.address is None


@given(st.binary(max_size=300) | st.builds(lambda tail: SIGNATURE + tail, st.binary(max_size=300)))
def test_whatever_comes_is_a_header_or_is_not_or_is_not_complete(data: bytes) -> None:
    try:
        header, taken = read(data)
    except InvalidProxyHeader:
        return
    assert taken == len(data) or header.missing == 0
    if header.address is not None:
        ipaddress.ip_address(header.address)


def test_the_longest_line_is_read() -> None:
    line = b"PROXY TCP6 " + b" ".join([b"ffff:" * 7 + b"ffff"] * 2) + b" 65535 65535\r\n"
    assert len(line) <= LONGEST_LINE
    assert read(line)[0].address == ":".join(["ffff"] * 8)


def test_the_proxies_that_are_trusted_are_those_in_the_networks() -> None:
    proxies = Proxies(["10.0.0.0/8", "2001:db8::/32", "192.0.2.1"])
    assert "10.9.9.9" in proxies
    assert "2001:db8::1" in proxies
    assert "192.0.2.1" in proxies
    assert "192.0.2.2" not in proxies
    assert "::1" not in proxies
    assert "unix:/run/a.sock" not in proxies
    assert "unix:/run/a.sock" in Proxies(["unix"])
    assert bool(Proxies(["unix"]))
    assert not Proxies([])
