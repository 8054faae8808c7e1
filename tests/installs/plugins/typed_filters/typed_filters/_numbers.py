"""A private module: one of its filters is public, the other is not."""

from __future__ import annotations

from asyncapy_core import Client, Filter, Packet


class Between(Filter):
    """Passes packets in which the number of one field is in a range."""

    def __init__(self, field: str, *, low: int = 0, high: int) -> None:
        self.field = field
        self.low = low
        self.high = high

    def check(self, c: Client, p: Packet) -> bool:
        value = p.get(self.field)
        return isinstance(value, int) and self.low <= value <= self.high


class Even(Filter):
    """Passes packets in which the number of one field is even."""

    def __init__(self, field: str) -> None:
        self.field = field

    def check(self, c: Client, p: Packet) -> bool:
        value = p.get(self.field)
        return isinstance(value, int) and value % 2 == 0
