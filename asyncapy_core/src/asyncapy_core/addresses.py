"""Addresses of peers and servers: IP addresses, and ``unix:`` with the path of a Unix domain socket."""

from __future__ import annotations

import ipaddress
import os
from typing import Any, Final

UNIX: Final = "unix:"
"""The prefix of the address of a Unix domain socket."""


def is_unix(address: str) -> bool:
    """Return True for the address of a Unix domain socket; its peers have no address of their own."""
    return address.startswith(UNIX)


def peer_address(host: str) -> str:
    """Return an IP address in its usual form: without a zone, and an IPv4-mapped IPv6 address as IPv4."""
    if ":" not in host or is_unix(host):
        return host
    address = ipaddress.IPv6Address(host.partition("%")[0])
    return str(address.ipv4_mapped or address)


def network_of(address: str) -> str:
    """Return the network that counts as one peer: an IPv4 address, or the /64 of an IPv6 address."""
    if ":" not in address or is_unix(address):
        return address
    return str(ipaddress.IPv6Network((address, 64), strict=False))


def endpoint(host: str, port: int) -> str:
    """Return ``host:port``, with an IPv6 address in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def bound_address(name: Any) -> str:
    """Return the text form of a bound address in the form of the socket module.

    That module gives names in Linux's abstract namespace as bytes that begin with 0; their text form begins with ``@``.
    """
    if isinstance(name, bytes):
        return f"{UNIX}@{os.fsdecode(name[1:])}"
    return UNIX + name if isinstance(name, str) else endpoint(*name[:2])


def is_exposed(name: Any) -> bool:
    """Return True if other machines may reach a bound address in the form of the socket module."""
    return not isinstance(name, (str, bytes)) and not ipaddress.ip_address(name[0].partition("%")[0]).is_loopback
