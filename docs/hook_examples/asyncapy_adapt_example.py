import inspect
import sys

import trio

from asyncapy import Server
from asyncapy_core import PluginManager, hookimpl
from asyncapy_core.testing import serving


@hookimpl
def asyncapy_adapt(function):
    if list(inspect.signature(function).parameters) == ["client", "packet"]:
        return None

    async def call(client, packet):
        fields = {name: value for name, value in packet.fields.items() if name != "op"}
        return {"result": function(**fields)}

    return call


plugins = PluginManager()
plugins.register(sys.modules[__name__], "example")
server = Server(plugins=plugins)


@server.operation("add")
def add(a, b):
    return a + b


async def main():
    async with serving(server) as running, running.client() as client:
        assert await client.request({"op": "add", "a": 1, "b": 2}) == {"result": 3}


trio.run(main)
