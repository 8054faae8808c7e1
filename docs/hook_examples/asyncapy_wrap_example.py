import sys
from collections import Counter

import trio

from asyncapy import Server
from asyncapy_core import PluginManager, hookimpl
from asyncapy_core.testing import serving

requests = Counter()


@hookimpl
def asyncapy_wrap(handler, call):
    if handler.operation is None:
        return None

    async def counted(client, packet):
        requests[handler.operation] += 1
        return await call(client, packet)

    return counted


plugins = PluginManager()
plugins.register(sys.modules[__name__], "example")
server = Server(plugins=plugins)


@server.operation("echo")
async def echo(client, packet):
    return packet


async def main():
    async with serving(server) as running, running.client() as client:
        await client.request({"op": "echo"})
    assert requests == {"echo": 1}


trio.run(main)
