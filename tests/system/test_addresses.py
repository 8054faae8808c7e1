"""Addresses of a server: Unix domain sockets, several addresses, and the warning about exposed ones."""

from __future__ import annotations

import signal
import socket
from pathlib import Path
from typing import Any

import pytest
import trio
from conftest import Certificates
from peer import JSON, Peer, json_packet, packet
from program import running

from asyncapy import Server
from asyncapy.errors import BindError
from asyncapy.filters import Filters
from asyncapy.util import APIKeyFactory
from asyncapy_core.testing.memory import LogLines

EXPOSED = "Every host that reaches this address"


@pytest.fixture
async def nursery_for_servers() -> Any:
    async with trio.open_nursery() as nursery:
        yield nursery
        nursery.cancel_scope.cancel()


def address_server(addr: Any, **settings: Any) -> Server:
    server = Server(addr=addr, port=0, **settings)

    @server.add_handler()
    async def reply(client: Any, packet: Any) -> None:
        await client.send({"address": client.address})

    return server


async def test_a_unix_domain_socket_is_served_and_removed_afterwards(
    tmp_path: Path, nursery_for_servers: trio.Nursery
) -> None:
    path = tmp_path / "api.sock"
    server = address_server(f"unix:{path}")
    assert await nursery_for_servers.start(server.serve) == (str(path),)
    async with await Peer.connect_unix(str(path)) as peer:
        assert await peer.ask(a=1) == {"address": f"unix:{path}"}
        await peer.send(packet(JSON, b"[]]"))
        assert await peer.failure() == "ERR_REQUEST_MALFORMED"
    server.stop()
    with trio.fail_after(5):
        while path.exists():  # noqa: ASYNC110  # the removal of a file has no event
            await trio.sleep(0.01)


async def test_peers_on_a_unix_domain_socket_have_no_limit_of_sessions_and_match_no_address(
    tmp_path: Path, nursery_for_servers: trio.Nursery
) -> None:
    path = tmp_path / "api.sock"
    server = Server(addr=f"unix:{path}", session_limit=1)

    @server.add_handler(Filters.Ip("0.0.0.0/0"))
    async def nobody(client: Any, packet: Any) -> None:
        await client.send({"an": "address"})

    await nursery_for_servers.start(server.serve)
    async with await Peer.connect_unix(str(path)) as first, await Peer.connect_unix(str(path)) as second:
        for peer in (first, second):
            await peer.send(json_packet(a=1))
            assert await peer.failure() == "ERR_NO_HANDLER"


async def test_several_addresses_are_served_at_once_the_tcp_ones_on_one_port(
    tmp_path: Path, nursery_for_servers: trio.Nursery
) -> None:
    path = tmp_path / "api.sock"
    server = address_server(["127.0.0.1", "127.0.0.2", f"unix:{path}"])
    addresses = await nursery_for_servers.start(server.serve)
    assert addresses == (("127.0.0.1", server.port), ("127.0.0.2", server.port), str(path))
    async with await Peer.connect(server.port, "127.0.0.2") as peer:
        assert await peer.ask(a=1) == {"address": "127.0.0.1"}
    async with await Peer.connect_unix(str(path)) as peer:
        assert await peer.ask(a=1) == {"address": f"unix:{path}"}


async def test_addresses_may_be_given_as_one_text(nursery_for_servers: trio.Nursery) -> None:
    server = address_server("127.0.0.1, 127.0.0.3")
    addresses = await nursery_for_servers.start(server.serve)
    assert [address[0] for address in addresses] == ["127.0.0.1", "127.0.0.3"]


async def test_the_socket_that_a_dead_server_left_behind_is_replaced(
    tmp_path: Path, nursery_for_servers: trio.Nursery
) -> None:
    path = tmp_path / "api.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    await nursery_for_servers.start(address_server(f"unix:{path}").serve)
    async with await Peer.connect_unix(str(path)) as peer:
        assert await peer.ask(a=1) == {"address": f"unix:{path}"}


async def test_the_socket_of_a_living_server_is_left_to_it(tmp_path: Path, nursery_for_servers: trio.Nursery) -> None:
    path = tmp_path / "api.sock"
    await nursery_for_servers.start(address_server(f"unix:{path}").serve)
    with pytest.raises(BindError, match="Address already in use; another server listens there") as caught:
        await address_server(f"unix:{path}").serve()
    assert str(path) in str(caught.value)
    async with await Peer.connect_unix(str(path)) as peer:
        assert await peer.ask(a=1) == {"address": f"unix:{path}"}


async def test_a_file_that_is_in_the_way_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "precious.txt"
    path.write_text("precious")
    with pytest.raises(BindError, match="a file of that name is in the way; give another path"):
        await address_server(f"unix:{path}").serve()
    assert path.read_text() == "precious"


async def test_a_folder_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(BindError, match="its folder does not exist; make it, or give another path"):
        await address_server(f"unix:{tmp_path}/none/api.sock").serve()


async def test_what_was_opened_before_an_address_that_cannot_be_had_is_closed(tmp_path: Path) -> None:
    path = tmp_path / "api.sock"
    with pytest.raises(BindError, match=r"192\.0\.2\.1"):
        await address_server(["127.0.0.1", f"unix:{path}", "192.0.2.1"]).serve()
    assert not path.exists()


async def test_a_name_that_can_be_none_is_told_and_nothing_stays_open(tmp_path: Path) -> None:
    path = tmp_path / "api.sock"
    with pytest.raises(BindError, match="give an IP address or a host name"):
        await address_server([f"unix:{path}", "b" * 70 + ".x"]).serve()
    assert not path.exists()


async def test_a_unix_domain_socket_may_be_that_of_a_proxy(tmp_path: Path, nursery_for_servers: trio.Nursery) -> None:
    path = tmp_path / "api.sock"
    await nursery_for_servers.start(address_server(f"unix:{path}", proxy_protocol_from="unix").serve)
    async with await Peer.connect_unix(str(path)) as peer:
        await peer.send(b"PROXY TCP4 192.0.2.7 127.0.0.1 1 1\r\n" + json_packet(a=1))
        assert await peer.json() == {"address": "192.0.2.7"}


async def exposure_warnings(nursery: trio.Nursery, server: Server) -> list[str]:
    """Start a server, and return its warnings about exposed addresses."""
    lines: list[str] = []
    server.log.addFilter(LogLines(lines))
    await nursery.start(server.serve)
    return [line for line in lines if EXPOSED in line]


async def test_a_server_that_anybody_can_reach_and_use_says_so_once(nursery_for_servers: trio.Nursery) -> None:
    (line,) = await exposure_warnings(nursery_for_servers, address_server("0.0.0.0"))
    assert "set tls_cert, add a guard (@server.guard) or a filter for API keys (Filters.APIFactory)" in line


async def test_a_server_that_is_local_or_asks_for_something_does_not(
    tmp_path: Path, nursery_for_servers: trio.Nursery, certificates: Certificates
) -> None:
    keys = Filters.APIFactory(APIKeyFactory(), "key")

    def filtered(*filters: Any) -> Server:
        server = Server(addr="0.0.0.0", port=0)

        @server.add_handler(*filters)
        async def handler(client: Any, packet: Any) -> None: ...

        return server

    guarded = address_server("0.0.0.0")
    guarded.guard(lambda client, packet: True)
    silent = [
        address_server("127.0.0.1"),
        address_server("127.0.0.2"),
        address_server(f"unix:{tmp_path}/a.sock"),
        address_server("0.0.0.0", tls_cert=certificates.server),
        guarded,
        filtered(keys),
        filtered(Filters.HasFields(a=None), keys & Filters.HasFields(b=None)),
    ]
    for server in silent:
        assert await exposure_warnings(nursery_for_servers, server) == []
    for server in (
        filtered(),
        filtered(Filters.Ip("127.0.0.1")),
        filtered(~keys),
        filtered(keys | Filters.HasFields()),
    ):
        assert len(await exposure_warnings(nursery_for_servers, server)) == 1


def test_a_program_on_a_unix_domain_socket_ends_in_order(tmp_path: Path) -> None:
    text = f"""
server = Server(addr="unix:{tmp_path}/api.sock")

@server.add_handler()
async def echo(client, packet):
    await client.send(packet)

server.start()
"""
    with running(tmp_path, text) as program:
        program.wait_for(f"Serving on unix:{tmp_path}/api.sock")
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(f"{tmp_path}/api.sock")
            sock.sendall(json_packet(a=1))
            assert sock.recv(100)[6:] == b'{"a":1}'
        assert program.end(signal.SIGTERM) == 0
        assert not (tmp_path / "api.sock").exists()
