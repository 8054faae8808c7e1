"""Wrong arguments of the clients are refused where they are given, with the argument and the form that is wanted."""

from __future__ import annotations

import math
from typing import Any

import pytest
import trio

from asyncapy.client import AsyncClient, Client, Pool

WRONG: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"timeout": "5"}, TypeError, "timeout is '5'; it must be a number of seconds"),
    ({"timeout": True}, TypeError, "timeout is True; it must be a number of seconds"),
    ({"timeout": -1}, ValueError, "timeout is -1; it must be more than 0 seconds"),
    ({"timeout": math.nan}, ValueError, "timeout is nan; it must be more than 0 seconds"),
    ({"timeout": math.inf}, ValueError, "timeout is inf; it must be more than 0 seconds"),
    ({"header_size": "4"}, TypeError, "header_size is '4'; it must be a whole number of bytes"),
    ({"header_size": 9}, ValueError, "header_size is 9; it must be 1 to 8 bytes"),
    ({"max_packet": 1.5}, TypeError, "max_packet is 1.5; it must be a whole number of bytes"),
    ({"byteorder": "middle"}, ValueError, "byteorder is 'middle'; it must be 'big' or 'little'"),
    ({"ssl_context": True}, TypeError, "ssl_context is True; it must be an ssl.SSLContext"),
    ({"ca_file": 7}, TypeError, "ca_file is 7; it must be the path of a file"),
    ({"version": 24}, ValueError, "version is 24; it must be 22"),
]
HOSTS: list[tuple[Any, Any, type[Exception], str]] = [
    (None, 8081, TypeError, "hostname is None; it must be a text"),
    (b"localhost", 8081, TypeError, "hostname is b'localhost'; it must be a text"),
    ("", 8081, ValueError, "hostname is empty; give a name or an IP address"),
    ("localhost", "8081", TypeError, "port is '8081'; it must be a number"),
    ("localhost", 8081.0, TypeError, "port is 8081.0; it must be a number"),
    ("localhost", 65536, ValueError, "port is 65536; a TCP port is 1 to 65535"),
]
POOLS: list[tuple[tuple[Any, ...], dict[str, Any], type[Exception], str]] = [
    (("localhost",), {}, TypeError, r"the host 'localhost' of the pool has no port; give Pool\('localhost', 8081\)"),
    ((["a", ("b", 1)],), {}, TypeError, r"the host 'a' of the pool has no port; give .* the pair \('a', 8081\)"),
    ((None, 8081), {}, TypeError, "a host of the pool is None; give a name such as 'localhost', or a pair"),
    (([("a", 1, 2)], 8081), {}, TypeError, r"a host of the pool is \('a', 1, 2\); give a name"),
    (([("a", "1")],), {}, TypeError, "port is '1'; it must be a number"),
    (([(None, 1)],), {}, TypeError, "hostname is None; it must be a text"),
    (([], 8081), {}, ValueError, "there is no host"),
    (("a", 8081), {"size": "2"}, TypeError, "size is '2'; it must be a whole number"),
    (("a", 8081), {"size": 0}, ValueError, "size is 0; a pool has 1 connection or more"),
]


@pytest.mark.parametrize(("settings", "error", "message"), WRONG)
def test_a_wrong_setting_is_refused(settings: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        Client(**settings)
    with pytest.raises(error, match=message):
        AsyncClient("localhost", 8081, **settings)
    with pytest.raises(error, match=message):
        Pool("localhost", 8081, **settings)


@pytest.mark.parametrize(("hostname", "port", "error", "message"), HOSTS)
def test_a_wrong_host_or_port_is_refused(hostname: Any, port: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        AsyncClient(hostname, port)
    with pytest.raises(error, match=message), Client() as client:
        client.connect(hostname, port)


@pytest.mark.parametrize(("arguments", "settings", "error", "message"), POOLS)
def test_a_pool_says_which_host_is_wrong(
    arguments: tuple[Any, ...], settings: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        Pool(*arguments, **settings)


async def test_a_pool_of_pairs_needs_no_port() -> None:
    async with Pool([("localhost", 8081), ("localhost", 8082)], tls=False) as pool:
        assert pool is not None


async def test_a_wrong_timeout_of_a_request_is_refused() -> None:
    wrong: Any = "5"
    async with AsyncClient("localhost", 8081, tls=False) as client:
        with pytest.raises(TypeError, match="timeout is '5'"), trio.fail_after(5):
            await client.request({}, timeout=wrong)
