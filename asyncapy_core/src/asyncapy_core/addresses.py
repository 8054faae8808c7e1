"""Addresses of peers and servers: an IP address, or ``unix:`` with the path of a Unix domain socket."""

from __future__ import annotations

import ipaddress
import os
from typing import Any, Final

UNIX: Final = "unix:"
"""How the address of a Unix domain socket begins."""


def is_unix(address: str) -> bool:
    """Say whether this is a Unix domain socket, whose peers have no address of their own."""
    return address.startswith(UNIX)


def peer_address(host: str) -> str:
    """Return an IP address in its usual form: without a zone, and IPv4 as IPv4 where it came mapped into IPv6."""
    if ":" not in host or is_unix(host):
        return host
    address = ipaddress.IPv6Address(host.partition("%")[0])
    return str(address.ipv4_mapped or address)


def network_of(address: str) -> str:
    """Return what counts as one peer: an IPv4 address, or the /64 that one host gets its IPv6 addresses from."""
    if ":" not in address or is_unix(address):
        return address
    return str(ipaddress.IPv6Network((address, 64), strict=False))


def endpoint(host: str, port: int) -> str:
    """Return a host and a port as one reads them, an IPv6 address in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def bound_address(name: Any) -> str:
    """Return the address that a socket is bound to as one writes it, given as the socket module has it.

    The module has names of Linux's abstract namespace as bytes that begin with 0; they are written with an ``@``.
    """
    if isinstance(name, bytes):
        return f"{UNIX}@{os.fsdecode(name[1:])}"
    return UNIX + name if isinstance(name, str) else endpoint(*name[:2])


def is_exposed(name: Any) -> bool:
    """Return True if other machines may reach a socket, given the name that the socket module has for it."""
    return not isinstance(name, (str, bytes)) and not ipaddress.ip_address(name[0].partition("%")[0]).is_loopback
