import sys

import trio

from asyncapy import Server
from asyncapy_core import PluginManager, hookimpl
from asyncapy_core.testing import serving


@hookimpl
async def asyncapy_drain(server):
    server.state.healthy = False
    await trio.sleep(1)  # a load balancer notices this


plugins = PluginManager()
plugins.register(sys.modules[__name__], "example")
server = Server(plugins=plugins)
server.state.healthy = True


@server.operation("health")
async def health(client, packet):
    return {"healthy": server.state.healthy}


async def main():
    async with serving(server) as running, running.client() as client:
        assert await client.request({"op": "health"}) == {"healthy": True}
        server.stop()
        await trio.sleep(0.01)
        assert await client.request({"op": "health"}) == {"healthy": False}


trio.run(main)
