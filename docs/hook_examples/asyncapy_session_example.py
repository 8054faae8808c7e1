import sys
from contextlib import asynccontextmanager
from contextvars import ContextVar

import trio

from asyncapy import Server
from asyncapy_core import PluginManager, hookimpl
from asyncapy_core.testing import serving

tenant = ContextVar("tenant")


@hookimpl
@asynccontextmanager
async def asyncapy_session(client):
    token = tenant.set("internal" if client.address.startswith("10.") else "external")
    yield
    tenant.reset(token)


plugins = PluginManager()
plugins.register(sys.modules[__name__], "example")
server = Server(plugins=plugins)


@server.operation("tenant")
async def answer(client, packet):
    return {"tenant": tenant.get()}


async def main():
    async with serving(server) as running, running.client(address="10.0.0.7") as client:
        assert await client.request({"op": "tenant"}) == {"tenant": "internal"}


trio.run(main)
