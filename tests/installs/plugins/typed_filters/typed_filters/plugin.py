"""The plugin. Type checkers cannot find the last four of its filters."""

from __future__ import annotations

import sys

from asyncapy_core import Client, Filter, Packet, hookimpl
from typed_filters._numbers import Between, Even


class _LongText(Filter):
    def __init__(self, field: str, length: int) -> None:
        self.field = field
        self.length = length

    def check(self, c: Client, p: Packet) -> bool:
        return len(str(p.get(self.field))) >= self.length


class Colours:
    class Red(Filter):
        def __init__(self, shade: int) -> None:
            self.shade = shade

        def check(self, c: Client, p: Packet) -> bool:
            return p.get("red") == self.shade


class Loose(Filter):
    def __init__(self, field, length=3):  # type: ignore[no-untyped-def]  # without annotations, as the test needs it
        self.field = field
        self.length = length

    def check(self, c: Client, p: Packet) -> bool:
        return len(str(p.get(self.field))) >= int(self.length)


if sys.platform != "nowhere":

    class Conditional(Filter):
        def check(self, c: Client, p: Packet) -> bool:
            return True


def _local() -> type[Filter]:
    class Local(Filter):
        def check(self, c: Client, p: Packet) -> bool:
            return True

    return Local


Made = type("Made", (Filter,), {"check": lambda self, c, p: True})
Hidden = type("Hidden", (Filter,), {"check": lambda self, c, p: True, "__module__": "nowhere"})


@hookimpl
def asyncapy_filters() -> dict[str, type[Filter]]:
    return {
        "Between": Between,
        "Even": Even,
        "Long": _LongText,
        "Red": Colours.Red,
        "Loose": Loose,
        "Conditional": Conditional,
        "Local": _local(),
        "Made": Made,
        "Hidden": Hidden,
        "class": Even,
    }
