import sys

import trio
from pydantic import BaseModel

from asyncapy import Server
from asyncapy_core import PluginManager, hookimpl
from asyncapy_core.testing import serving


class asyncapy_options(BaseModel):
    greeting: str = "hello"


@hookimpl
async def asyncapy_setup(server, options):
    server.state.greeting = options.greeting
    server.exit_stack.callback(print, "closed")


plugins = PluginManager()
plugins.register(sys.modules[__name__], "example")
server = Server(plugins=plugins, plugin_options={"example": {"greeting": "good morning"}})


async def main():
    async with serving(server):
        assert server.state.greeting == "good morning"


trio.run(main)
