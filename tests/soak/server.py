"""The program under test in `make soak`: a plain, a TLS and a PROXY-protocol server in one process, with key stores.

``server.py VERSION CERTIFICATE URL...`` prints their ports as JSON. On standard error it writes failures only. With
version 23, there are two further servers, which stop and start again in turn.
"""

from __future__ import annotations

import functools
import gc
import json
import logging
import operator
import signal
import sys
import threading
from collections import Counter
from typing import Any

import trio
from numbered_load import add_load_handler
from pauses import Pauses
from ports import free_port

from asyncapy import Server
from asyncapy.filters import Filter, Filters
from asyncapy.util import APIKeyFactory

EXPECTED = "a handler that fails"
PAUSES = Pauses()
DRAINED = ("one", "two")
DRAIN_SECONDS = 4.0
"""How long each of the servers of ``DRAINED`` serves; one stops in the middle of the time of the other."""
COUNTS: Counter[str] = Counter()


def make_servers(certificate: str, urls: list[str], *, drained: bool) -> dict[str, Server]:
    """Return the servers by kind; packets with a key pass only if one of the stores has it."""
    common: dict[str, Any] = {"port": 0, "timeout": 30, "send_timeout": 2, "max_connections": 5000}
    servers = {
        "plain": Server(**common),
        "tls": Server(tls_cert=certificate, handshake_timeout=3, **common),
        "proxy": Server(proxy_protocol_from=["127.0.0.0/8"], **common),
    }
    if drained:
        servers |= {name: Server(**{**common, "port": free_port()}) for name in DRAINED}
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
    add_load_handler(server)

    @server.add_handler(group=-1)
    async def odd(client: Any, packet: Any) -> None:
        if "fail" in packet:
            raise SystemExit(EXPECTED)
        if "sleep" in packet:
            await trio.sleep(packet["sleep"])
        if "stats" in packet:
            gc.collect()
            statistics = [each.statistics() for each in servers.values()]
            figures = {
                "tasks": trio.lowlevel.current_statistics().tasks_living,
                "blocks": sys.getallocatedblocks(),
                "threads": threading.active_count(),
                "connections": sum(each.connections + each.refused for each in statistics),
                "handshakes": sum(each.handshakes for each in statistics),
                "sessions": sum(each.sessions for each in statistics),
                "milliseconds": round(PAUSES.longest * 1000),
                "drains": COUNTS["drains"],
            }
            await client.send(figures)
            packet.stop_propagation()
        if "big" in packet:
            await client.send({"n": packet["n"], "text": "x" * packet["big"]})
            packet.stop_propagation()

    @server.add_handler()
    async def echo(client: Any, packet: Any) -> None:
        await client.send(packet)


async def serve_again_and_again(server: Server, delay: float, *, task_status: trio.TaskStatus[tuple[Any, ...]]) -> None:
    """Serve, stop, and serve again on the same port, until cancelled.

    Args:
        server: the server.
        delay: seconds by which its first stop is delayed.
        task_status: gets its addresses.
    """
    started = False
    while True:
        async with trio.open_nursery() as nursery:
            addresses = await nursery.start(server.serve)
            if not started:
                task_status.started(addresses)
            await trio.sleep(DRAIN_SECONDS + (0 if started else delay))
            started = True
            server.stop()
        COUNTS["drains"] += 1


async def main() -> None:
    version, certificate, *urls = sys.argv[1:]
    servers = make_servers(certificate, urls, drained=version == "23")
    async with trio.open_nursery() as nursery, trio.open_nursery() as drained:
        nursery.start_soon(PAUSES.watch)
        ports = {}
        for kind, server in servers.items():
            if kind in DRAINED:
                delay = DRAINED.index(kind) * DRAIN_SECONDS / len(DRAINED)
                addresses = await drained.start(serve_again_and_again, server, delay)
            else:
                addresses = await nursery.start(server.serve)
            ports[kind] = addresses[0][1]
        sys.stdout.write(json.dumps(ports) + "\n")
        sys.stdout.flush()
        with trio.open_signal_receiver(signal.SIGTERM) as signals:
            async for _ in signals:
                break
        drained.cancel_scope.cancel()
        for server in servers.values():
            server.stop()
        PAUSES.scope.cancel()


if __name__ == "__main__":
    trio.run(main)
