"""A plugin with the entry-point name of acme_filters; its filter has another name."""

from __future__ import annotations

from asyncapy_core import Client, Filter, Packet, hookimpl


class Whisper(Filter):
    """Passes packets in which the text of one field is lower case."""

    def __init__(self, field: str) -> None:
        self.field = field

    def check(self, c: Client, p: Packet) -> bool:
        return str(p.get(self.field)).islower()


@hookimpl
def asyncapy_filters() -> dict[str, type[Filter]]:
    return {"Whisper": Whisper}
