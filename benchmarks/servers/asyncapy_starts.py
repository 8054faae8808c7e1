"""AsyncAPY: handlers that wait, beside other work of 2 ms a turn. A packet with ``spread`` asks when they started."""

import time

import trio

from asyncapy import Server
from asyncapy.core import Client, Packet
from asyncapy.filters import Filters

TURN = 0.002

server = Server(port=0)
starts: list[float] = []


@server.beside
async def work() -> None:
    """Keep the loop busy."""
    while True:
        end = time.perf_counter() + TURN
        while time.perf_counter() < end:
            pass
        await trio.lowlevel.checkpoint()


@server.add_handler(Filters.HasFields(spread=None))
async def spread(client: Client, packet: Packet) -> dict[str, float]:
    """Return the seconds from the first start to the last, and forget them."""
    seconds = starts[-1] - starts[0]
    starts.clear()
    return {"seconds": seconds}


@server.add_handler()
async def wait(client: Client, packet: Packet) -> dict[str, str]:
    """Answer after a wait."""
    starts.append(time.perf_counter())
    await trio.sleep(0.001)
    return {}


server.start()
