import sys

import trio

from asyncapy import Server
from asyncapy_core import PluginManager, hookimpl
from asyncapy_core.testing import serving


@hookimpl
async def asyncapy_run(server, task_status):
    server.state.reports = []
    task_status.started()
    while True:
        now = server.statistics()
        server.state.reports.append({"sessions": now.sessions, "bytes": now.bytes_received})
        await trio.sleep(60)


plugins = PluginManager()
plugins.register(sys.modules[__name__], "example")
server = Server(plugins=plugins)


async def main():
    async with serving(server):
        assert server.state.reports == [{"sessions": 0, "bytes": 0}]


trio.run(main)
