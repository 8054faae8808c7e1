"""The program under test in `make soak`: a plain, a TLS and a PROXY-protocol server in one process, with key stores.

``server.py CERTIFICATE URL...`` prints the ports of the three as JSON. On standard error it writes failures only.
"""

from __future__ import annotations

import functools
import json
import logging
import operator
import signal
import sys
import threading
from typing import Any

import trio
from pauses import Pauses

from asyncapy import Server
from asyncapy.filters import Filter, Filters
from asyncapy.util import APIKeyFactory

EXPECTED = "a handler that fails"
PAUSES = Pauses()


def make_servers(certificate: str, urls: list[str]) -> dict[str, Server]:
    """Return the servers by kind; packets with a key pass only if one of the stores has it."""
    common: dict[str, Any] = {"port": 0, "timeout": 30, "send_timeout": 2, "max_connections": 5000}
    servers = {
        "plain": Server(**common),
        "tls": Server(tls_cert=certificate, handshake_timeout=3, **common),
        "proxy": Server(proxy_protocol_from=["127.0.0.0/8"], **common),
    }
    filters: list[Filter] = [~Filters.HasFields(key=None)]
    filters += [Filters.APIFactory(APIKeyFactory(store=url), "key") for url in urls]
    for server in servers.values():
        server.guard(functools.reduce(operator.or_, filters))
        add_handlers(server, servers)
        server.log.handlers[0].addFilter(_is_unexpected)
    return servers


def _is_unexpected(record: logging.LogRecord) -> bool:
    return record.levelno >= logging.ERROR and EXPECTED not in record.getMessage()


def add_handlers(server: Server, servers: dict[str, Server]) -> None:
    @server.add_handler(group=-1)
    async def odd(client: Any, packet: Any) -> None:
        if "fail" in packet:
            raise SystemExit(EXPECTED)
        if "sleep" in packet:
            await trio.sleep(packet["sleep"])
        if "stats" in packet:
            statistics = [each.statistics() for each in servers.values()]
            figures = {
                "tasks": trio.lowlevel.current_statistics().tasks_living,
                "threads": threading.active_count(),
                "connections": sum(each.connections + each.refused for each in statistics),
                "handshakes": sum(each.handshakes for each in statistics),
                "sessions": sum(each.sessions for each in statistics),
                "milliseconds": round(PAUSES.longest * 1000),
            }
            await client.send(figures)
            packet.stop_propagation()
        if "big" in packet:
            await client.send({"n": packet["n"], "text": "x" * packet["big"]})
            packet.stop_propagation()

    @server.add_handler()
    async def echo(client: Any, packet: Any) -> None:
        await client.send(packet)


async def main() -> None:
    servers = make_servers(sys.argv[1], sys.argv[2:])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(PAUSES.watch)
        ports = {}
        for kind, server in servers.items():
            addresses = await nursery.start(server.serve)
            ports[kind] = addresses[0][1]
        sys.stdout.write(json.dumps(ports) + "\n")
        sys.stdout.flush()
        with trio.open_signal_receiver(signal.SIGTERM) as signals:
            async for _ in signals:
                break
        for server in servers.values():
            server.stop()
        PAUSES.scope.cancel()


if __name__ == "__main__":
    trio.run(main)
