"""A plugin that claims the same filter name as acme_filters."""

from __future__ import annotations

from asyncapy_core import Client, Filter, Packet, hookimpl


class Shout(Filter):
    """Passes packets in which a field ends with an exclamation mark."""

    def __init__(self, field: str) -> None:
        self.field = field

    def check(self, c: Client, p: Packet) -> bool:
        return str(p.get(self.field)).endswith("!")


@hookimpl
def asyncapy_filters() -> dict[str, type[Filter]]:
    return {"Shout": Shout}
