"""The filter for the address of the peer."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable, MutableSequence, Sequence
from typing import ClassVar, overload

from pydantic import TypeAdapter, ValidationError

from asyncapy_core import Client, Filter, Packet

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_texts = TypeAdapter(str | list[str])


class Ip(Filter):
    """Passes packets of clients with these addresses. The addresses may be changed while the server runs.

    Args:
        ips: an IPv4 or IPv6 address, a network such as ``"10.0.0.0/8"``, or a list of these.

    Attributes:
        ips: the list of addresses and networks; it may be changed in place or assigned.

    Raises:
        ValueError: one of them is neither an address nor a network.
    """

    def __init__(self, ips: list[str] | str) -> None:
        self._ips = AddressList(ips)

    @property
    def ips(self) -> AddressList:
        """The addresses and networks that pass."""
        return self._ips

    @ips.setter
    def ips(self, ips: Sequence[str] | str) -> None:
        self._ips = AddressList(ips)

    def check(self, c: Client, p: Packet) -> bool:
        """Return True if the client's address is in the list."""
        return self._ips.covers(c.address)

    def __repr__(self) -> str:
        return f"Ip({list(self._ips)!r})"


class AddressList(MutableSequence[str]):
    """A list of addresses and networks as strings. Each change is validated."""

    def __init__(self, ips: Sequence[str] | str) -> None:
        try:
            texts = _texts.validate_python(ips if isinstance(ips, str) or not isinstance(ips, Sequence) else list(ips))
        except ValidationError as error:
            raise ValueError(f"{ips!r} is neither an IP address nor a list of them, such as {EXAMPLE}") from error
        self._texts: list[str] = []
        self._change(lambda empty: empty.extend([texts] if isinstance(texts, str) else texts))

    def covers(self, address: str) -> bool:
        """Return whether the list holds an address or a network of it; False for text that is not an address."""
        if address in self._seen:
            return True
        if not self._wide:
            return False
        try:
            parsed = ipaddress.ip_address(address)
        except ValueError:
            return False
        return any(parsed in network for network in self._wide)

    def insert(self, index: int, value: str) -> None:
        """Insert an address or network.

        Raises:
            ValueError: the value is neither.
        """
        self._change(lambda texts: texts.insert(index, value))

    def extend(self, values: Iterable[str]) -> None:
        """Append addresses and networks: all of them, or none if one is invalid.

        Raises:
            ValueError: one of them is neither an address nor a network.
        """
        self._change(lambda texts: texts.extend(values))

    def __eq__(self, other: object) -> bool:
        return self._texts == (other._texts if isinstance(other, AddressList) else other)

    __hash__: ClassVar[None] = None  # type: ignore[assignment]  # a list has no hash either

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> MutableSequence[str]: ...
    def __getitem__(self, index: int | slice) -> str | MutableSequence[str]:
        return self._texts[index]

    @overload
    def __setitem__(self, index: int, value: str) -> None: ...
    @overload
    def __setitem__(self, index: slice, value: Iterable[str]) -> None: ...
    def __setitem__(self, index: int | slice, value: str | Iterable[str]) -> None:
        self._change(lambda texts: texts.__setitem__(index, value))  # type: ignore[index, assignment]  # same two pairs

    def __delitem__(self, index: int | slice) -> None:
        self._change(lambda texts: texts.__delitem__(index))

    def __len__(self) -> int:
        return len(self._texts)

    def __repr__(self) -> str:
        return repr(self._texts)

    def _change(self, change: Callable[[list[str]], None]) -> None:
        """Apply a change, unless an item of the result is neither an address nor a network."""
        texts = list(self._texts)
        change(texts)
        networks = [_network(text) for text in texts]
        self._texts = texts
        self._seen = {str(network.network_address) for network in networks if network.num_addresses == 1}
        self._wide = [network for network in networks if network.num_addresses > 1]


EXAMPLE = "'192.0.2.7', '2001:db8::1' or '10.0.0.0/8'"


def _network(text: object) -> Network:
    """Parse a network, or an address as a network of one; IPv4 mapped into IPv6 becomes IPv4."""
    if not isinstance(text, str) or "%" in text:
        raise ValueError(
            f"{text!r} is neither an IP address nor a network; write it as text, without a zone, such as {EXAMPLE}"
        )
    try:
        network = ipaddress.ip_network(text)
    except ValueError as error:
        raise ValueError(f"{text!r} is neither an IP address nor a network, such as {EXAMPLE}: {error}") from error
    mapped = network.network_address.ipv4_mapped if isinstance(network, ipaddress.IPv6Network) else None
    if mapped is not None and network.prefixlen >= 96:
        return ipaddress.IPv4Network((mapped, network.prefixlen - 96))
    return network
