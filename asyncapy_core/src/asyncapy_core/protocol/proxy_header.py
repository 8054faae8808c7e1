"""The PROXY protocol, versions 1 and 2, without I/O: a proxy sends the address of its client before the first packet.

`ProxyHeader` never requests a byte beyond the header.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from typing import Final

from asyncapy_core.addresses import is_unix
from asyncapy_core.errors import ProtocolError

SIGNATURE: Final = b"\r\n\r\n\x00\r\nQUIT\n"
"""The first bytes of version 2."""

FIXED: Final = len(SIGNATURE) + 4
LONGEST_LINE: Final = 107
LONGEST_BINARY: Final = 2048
"""The most bytes of addresses and extensions in version 2; proxies send some dozens."""

_ADDRESS_BYTES: Final = {0x1: 4, 0x2: 16}
_LOCAL: Final = 0x20
_STREAM: Final = 0x1
_FIELDS: Final = 6


class Proxies:
    """The peers that are trusted to send a PROXY header.

    Args:
        networks: IP networks, and ``"unix"`` for all peers on Unix domain sockets.
    """

    __slots__ = ("_networks", "_unix")

    def __init__(self, networks: Iterable[str]) -> None:
        names = list(networks)
        self._unix = "unix" in names
        self._networks = [ipaddress.ip_network(name) for name in names if name != "unix"]

    def __bool__(self) -> bool:
        return self._unix or bool(self._networks)

    def __contains__(self, address: str) -> bool:
        if is_unix(address):
            return self._unix
        peer = ipaddress.ip_address(address)
        return any(peer in network for network in self._networks)


class InvalidProxyHeader(ProtocolError):
    """A trusted proxy sent no valid PROXY header."""


class ProxyHeader:
    """Parses one header.

    Attributes:
        missing: the least number of bytes until the header is complete; 0 when it is.
        address: once complete, the IP address of the client; None if the header has none.
        local: once complete, whether the connection is one of the proxy itself, such as a health check. In version 1,
            such a connection has no address, and is not told from one of an unknown client.
    """

    __slots__ = ("_data", "address", "local", "missing")

    def __init__(self) -> None:
        self._data = b""
        self.missing: int = len(SIGNATURE)
        self.address: str | None = None
        self.local: bool = False

    def feed(self, data: bytes) -> None:
        """Append received bytes, at most ``missing``.

        Raises:
            InvalidProxyHeader: the bytes are not a header of the PROXY protocol.
        """
        self._data += data
        self.missing -= len(data)
        if self.missing:
            return
        if self._data.startswith(SIGNATURE):
            self._read_binary()
        elif self._data.startswith(b"PROXY "):
            self._read_line()
        else:
            raise InvalidProxyHeader("the connection does not begin with a header of the PROXY protocol")

    def _read_line(self) -> None:
        """Parse version 1, a line of text: at least two bytes are missing until its CR has arrived."""
        if not self._data.endswith(b"\r\n"):
            self.missing = 1 if self._data.endswith(b"\r") else 2
            if len(self._data) + self.missing > LONGEST_LINE or b"\n" in self._data or b"\r" in self._data[:-1]:
                raise InvalidProxyHeader(f"a PROXY line of more than {LONGEST_LINE} bytes, or with a stray line end")
            return
        fields = self._data[:-2].split(b" ")
        if fields[1] == b"UNKNOWN":
            return
        try:
            family = {b"TCP4": ipaddress.IPv4Address, b"TCP6": ipaddress.IPv6Address}[fields[1]]
            source, _ = (family(field.decode("ascii")) for field in fields[2:4])
            ports = [int(field) for field in fields[4:] if field.isdigit() and int(field) <= 65535]
        except (KeyError, ValueError) as error:
            raise InvalidProxyHeader("a PROXY line without two addresses of its family") from error
        if len(fields) != _FIELDS or len(ports) != 2:
            raise InvalidProxyHeader("a PROXY line without two ports")
        self.address = str(source)

    def _read_binary(self) -> None:
        """Parse version 2: a fixed part with the length of the rest."""
        if len(self._data) < FIXED:
            self.missing = FIXED - len(self._data)
            return
        command, family = self._data[len(SIGNATURE)], self._data[len(SIGNATURE) + 1]
        length = int.from_bytes(self._data[FIXED - 2 : FIXED], "big")
        if command not in {_LOCAL, 0x21}:
            raise InvalidProxyHeader(f"PROXY version and command {command:#04x}; 0x20 and 0x21 are known")
        self.local = command == _LOCAL
        if length > LONGEST_BINARY:
            raise InvalidProxyHeader(f"a PROXY header of {length} bytes; at most {LONGEST_BINARY} are accepted")
        self.missing = FIXED + length - len(self._data)
        if self.missing or self.local or family >> 4 not in _ADDRESS_BYTES or family & 0xF != _STREAM:
            return
        size = _ADDRESS_BYTES[family >> 4]
        if length < 2 * size + 4:
            raise InvalidProxyHeader("a PROXY header too short for its addresses")
        self.address = str(ipaddress.ip_address(self._data[FIXED : FIXED + size]))
