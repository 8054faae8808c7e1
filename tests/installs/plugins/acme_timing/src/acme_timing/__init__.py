"""Measures the handlers of a server of AsyncAPY. Its operation ``timings`` answers with the numbers and the seconds."""

from __future__ import annotations

import time

from pydantic import BaseModel, Field

from asyncapy_core import Client, Packet, Router, hookimpl
from asyncapy_core.interfaces import HandlerInterface, ServerInterface
from asyncapy_core.plugins.hookspecs import HandlerCall

OPERATION = "timings"


class asyncapy_options(BaseModel):
    """The options of this plugin, in the section ``[plugin:acme_timing]``."""

    digits: int = Field(default=6, ge=0, le=9, description="the decimal places of the seconds")


class Timings:
    """The number of calls and the seconds of each handler."""

    def __init__(self) -> None:
        self.by_handler: dict[str, list[float]] = {}

    def add(self, handler: str, seconds: float) -> None:
        """Count a call."""
        numbers = self.by_handler.setdefault(handler, [0, 0.0])
        numbers[0] += 1
        numbers[1] += seconds


@hookimpl
def asyncapy_setup(server: ServerInterface, options: asyncapy_options) -> None:
    """Register the operation."""
    timings = server.state.acme_timings = Timings()
    router = Router()

    @router.operation(OPERATION)
    async def tell(client: Client, packet: Packet) -> dict[str, object]:
        return {
            name: {"calls": numbers[0], "seconds": round(numbers[1], options.digits)}
            for name, numbers in timings.by_handler.items()
        }

    server.exit_stack.callback(server.include(router).remove)


@hookimpl(tryfirst=True)
def asyncapy_wrap(server: ServerInterface, handler: HandlerInterface, call: HandlerCall) -> HandlerCall | None:
    """Measure a handler."""
    if handler.operation == OPERATION:
        return None
    timings: Timings = server.state.acme_timings

    async def timed(client: Client, packet: Packet) -> object:
        started = time.perf_counter()
        try:
            return await call(client, packet)
        finally:
            timings.add(handler.name, time.perf_counter() - started)

    return timed
