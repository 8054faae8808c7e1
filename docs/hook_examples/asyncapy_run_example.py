import sys

import trio

from asyncapy import Server
from asyncapy_core import PluginManager, hookimpl
from asyncapy_core.testing import serving


@hookimpl
async def asyncapy_run(server, task_status):
    server.state.beats = 1
    task_status.started()
    while True:
        await trio.sleep(3600)
        server.state.beats += 1


plugins = PluginManager()
plugins.register(sys.modules[__name__], "example")
server = Server(plugins=plugins)


async def main():
    async with serving(server):
        assert server.state.beats == 1


trio.run(main)
