"""A filter of a third party."""

from __future__ import annotations

from asyncapy_core import Client, Filter, Packet, hookimpl


class Shout(Filter):
    """Passes packets in which the text of one field is upper case."""

    def __init__(self, field: str) -> None:
        if type(field) is not str or not field:
            raise ValueError(f"Shout wants the name of a field; got {field!r}")
        self.field = field

    def check(self, c: Client, p: Packet) -> bool:
        value = p.get(self.field)
        return isinstance(value, str) and value.isupper()


@hookimpl
def asyncapy_filters() -> dict[str, type[Filter]]:
    return {"Shout": Shout}
