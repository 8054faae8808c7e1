"""AsyncAPY: the echo behind one filter, and a plugin with a wrap: none, one that returns None, or one around the call.

The environment variable ``WRAP`` is ``none``, ``unused`` or ``used``.
"""

import os
from collections.abc import Awaitable, Callable
from types import SimpleNamespace

from asyncapy import Server
from asyncapy.core import Client, Packet
from asyncapy.filters import Filters
from asyncapy_core import PluginManager, hookimpl

Call = Callable[[Client, Packet], Awaitable[object]]


def around(call: Call) -> Call:
    """Return a function that only awaits the call."""

    async def wrapped(client: Client, packet: Packet) -> object:
        return await call(client, packet)

    return wrapped


plugins = PluginManager()
WRAPS: dict[str, Callable[..., Call | None]] = {"unused": lambda: None, "used": around}
if os.environ["WRAP"] in WRAPS:
    plugins.register(SimpleNamespace(asyncapy_wrap=hookimpl(WRAPS[os.environ["WRAP"]])), "wrap")
server = Server(port=0, plugins=plugins)


@server.add_handler(Filters.Fields(test=None))
async def echo(client: Client, packet: Packet) -> None:
    """Send the packet back."""
    await client.send(packet)


server.start()
