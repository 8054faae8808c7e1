"""Servers with the plugin ``metrics`` on a free port, and scrapes of them over HTTP."""

from __future__ import annotations

import re
from typing import Any

import h11
import trio
from conftest import Running, Serve
from hooks import manager
from prometheus_client.parser import text_string_to_metric_families

import asyncapy_metrics.plugin
from asyncapy_core import Server

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]
"""Values by name and labels; an empty label is no label, as in Prometheus."""


def with_metrics(options: dict[str, Any] | None = None, /, **settings: Any) -> Server:
    """Return a server with the plugin ``metrics``, on a free port unless the options have another one."""
    plugins = manager(metrics=asyncapy_metrics.plugin)
    return Server(port=0, plugins=plugins, plugin_options={"metrics": {"port": 0, **(options or {})}}, **settings)


def metrics_port(running: Running) -> int:
    """Return the port of the last line about it."""
    return int(re.findall(r"Metrics on http://.*:(\d+)/", "\n".join(running.lines))[-1])


async def start(serve: Serve, server: Server) -> tuple[Running, int]:
    """Start a server; return it with the port of its metrics."""
    running = await serve(server)
    return running, metrics_port(running)


async def exchange(port: int, request: bytes) -> bytes:
    """Send bytes, and return all bytes that the server sends until it closes the connection."""
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        await stream.send_all(request)
        return await received(stream)


async def received(stream: trio.SocketStream) -> bytes:
    """Return the bytes until the end of a stream."""
    data = b""
    with trio.fail_after(20):
        while more := await stream.receive_some():
            data += more
    return data


async def fetch(port: int, path: str = "/metrics", method: str = "GET") -> tuple[h11.Response, bytes]:
    """Return a response and its body. An invalid response raises an exception."""
    client = h11.Connection(h11.CLIENT)
    request = client.send(h11.Request(method=method, target=path, headers=[("Host", f"127.0.0.1:{port}")]))
    client.send(h11.EndOfMessage())
    assert request is not None
    client.receive_data(await exchange(port, request))
    client.receive_data(b"")
    response = client.next_event()
    assert isinstance(response, h11.Response)
    body = b""
    while isinstance(event := client.next_event(), h11.Data):
        body += event.data
    assert isinstance(event, h11.EndOfMessage)
    return response, body


async def scrape(port: int) -> Samples:
    """Return the samples of a scrape. A second sample of the same name and labels fails."""
    response, body = await fetch(port)
    assert response.status_code == 200
    return parse(body)


def parse(text: bytes) -> Samples:
    """Return the samples of a text."""
    found: Samples = {}
    names = set()
    for family in text_string_to_metric_families(text.decode()):
        assert family.name not in names, "a metric is in two places"
        names.add(family.name)
        for sample in family.samples:
            key = sample.name, frozenset((label, value) for label, value in sample.labels.items() if value)
            assert key not in found
            found[key] = sample.value
    return found


def labelled(name: str, **labels: str) -> tuple[str, frozenset[tuple[str, str]]]:
    """Return the key of a sample."""
    return name, frozenset(labels.items())
