"""A plugin that implements a hook that does not exist: asyncapy_filter, instead of asyncapy_filters."""

from __future__ import annotations

from asyncapy_core import Client, Filter, Packet, hookimpl


class Anything(Filter):
    def check(self, c: Client, p: Packet) -> bool:
        return True


@hookimpl
def asyncapy_filter() -> dict[str, type[Filter]]:
    return {"Anything": Anything}
