import sys

import trio

from asyncapy import Server
from asyncapy_core import PluginManager, hookimpl
from asyncapy_core.testing import serving


@hookimpl
def asyncapy_shutdown(server):
    server.state.saved = True


plugins = PluginManager()
plugins.register(sys.modules[__name__], "example")
server = Server(plugins=plugins)


async def main():
    async with serving(server):
        pass
    assert server.state.saved


trio.run(main)
