"""The target ``proxy``: headers of the PROXY protocol, of both versions."""

from __future__ import annotations

import ipaddress
import random

from asyncapy_core.protocol.proxy_header import InvalidProxyHeader, ProxyHeader

SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"
SHORTEST_LINE = len(b"PROXY UNKNOWN\r\n")
LONGEST = 16 + 2048


def proxy(data: bytes) -> None:
    """A stream in any pieces gives the same address or the same error, and no byte beyond the header is read."""
    if not data:
        return
    chance, stream = random.Random(data[0]), data[1:]
    whole = _parsed(stream, lambda missing: missing)
    assert whole == _parsed(stream, lambda missing: 1)
    assert whole == _parsed(stream, lambda missing: chance.randint(1, missing))
    complete, read, address, error = whole
    assert read <= LONGEST
    if address is not None:
        assert complete
        assert str(ipaddress.ip_address(address)) == address
    if complete and error is None:
        assert read == _length(stream)


def _parsed(stream: bytes, piece: object) -> tuple[bool, int, str | None, str | None]:
    """Return whether a header is complete, the bytes that were read, and the address or the error."""
    header = ProxyHeader()
    read = 0
    while header.missing:
        assert callable(piece)
        size = piece(header.missing)
        assert 1 <= size <= header.missing
        length = _length(stream)
        assert length is None or read + header.missing <= length, "bytes beyond the header are requested"
        part = stream[read : read + size]
        if not part:
            return False, read, header.address, None
        read += len(part)
        try:
            header.feed(part)
        except InvalidProxyHeader as error:
            return True, 0, header.address, str(error)
    return True, read, header.address, None


def _length(stream: bytes) -> int | None:
    """Return the length of the header at the beginning of a stream by the specification, None if there is none."""
    if stream.startswith(SIGNATURE) and len(stream) >= 16:
        return 16 + int.from_bytes(stream[14:16], "big")
    if stream.startswith(b"PROXY ") and stream.find(b"\r\n") + 2 >= SHORTEST_LINE:
        return stream.index(b"\r\n") + 2
    return None
