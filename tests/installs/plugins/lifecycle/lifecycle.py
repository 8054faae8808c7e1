"""A plugin that writes the calls of its hooks into a journal, a required option; it also has a filter."""

from __future__ import annotations

import functools
from pathlib import Path

import trio
from pydantic import BaseModel

from asyncapy_core import Client, Filter, Packet, Server, hookimpl
from asyncapy_core.errors import PluginError


class Options(BaseModel):
    journal: Path
    greeting: str = "hello"
    refuse: bool = False


asyncapy_options = Options


class Awake(Filter):
    def check(self, c: Client, p: Packet) -> bool:
        return True


def write(journal: Path, line: str) -> None:
    with journal.open("a", encoding="utf-8") as file:
        file.write(f"{line}\n")


@hookimpl
def asyncapy_filters() -> dict[str, type[Filter]]:
    return {"Awake": Awake}


@hookimpl
async def asyncapy_setup(server: Server, options: Options) -> None:
    note = functools.partial(write, options.journal)
    server.exit_stack.callback(note, "stack closed")
    await trio.lowlevel.checkpoint()
    note(f"setup {options.greeting}, listening on {list(server.addresses)}")
    if options.refuse:
        raise PluginError("not on a Sunday")


@hookimpl
async def asyncapy_shutdown(options: Options) -> None:
    await trio.lowlevel.checkpoint()
    write(options.journal, f"shutdown {options.greeting}")
